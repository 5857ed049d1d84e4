"""A bidirectional GRU on TREC questions; another set: --config.task.dataset=mr --config.task.fold=3."""

import configs


def get_config():
    return configs.make("gru", "sentence", task={"dataset": "trec"}, model={"bidirectional": True})
