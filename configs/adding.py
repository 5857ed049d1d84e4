"""The adding problem over 400 steps, for any cell: --config.cell.name=lstm."""

import configs


def get_config():
    return configs.make("gru", "adding", task={"length": 400}, parameters=10_000)
