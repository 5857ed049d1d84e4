import configs


def get_config():
    return configs.make(cell="sru_feedback", task="delayed_recall")
