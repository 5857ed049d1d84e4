"""A plain RNN on delayed recall."""

import configs


def get_config():
    return configs.make("rnn", "delayed_recall")
