"""An SRU with full feedback on delayed recall."""

import configs


def get_config():
    return configs.make("sru_feedback", "delayed_recall")
