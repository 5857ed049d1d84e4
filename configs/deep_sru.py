"""A deep SRU on permuted MNIST, as its paper trains deep stacks: highway bias below 0, alpha on."""

import configs


def get_config():
    return configs.make(
        "sru",
        "permuted_mnist",
        cell={"hidden_size": 128, "highway_bias": -3.0},
        model={"depth": 6, "embedding_size": 128, "dropout": 0.1},
        optim={"learning_rate": 1e-3},
        train={"seeds": 2},
    )
