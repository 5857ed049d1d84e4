"""A GRU on delayed recall."""

import configs


def get_config():
    return configs.make("gru", "delayed_recall")
