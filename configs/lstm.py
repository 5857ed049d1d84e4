"""An LSTM on delayed recall."""

import configs


def get_config():
    return configs.make("lstm", "delayed_recall")
