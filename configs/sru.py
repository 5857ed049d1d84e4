import configs


def get_config():
    return configs.make(cell="sru", task="delayed_recall")
