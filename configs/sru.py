"""An SRU (linear state, associative scan) on delayed recall."""

import configs


def get_config():
    return configs.make("sru", "delayed_recall")
