import configs


def get_config():
    return configs.make(cell="lstm", task="delayed_recall")
