import configs


def get_config():
    return configs.make(cell="rnn", task="delayed_recall")
