import configs


def get_config():
    return configs.make(cell="gru", task="delayed_recall")
