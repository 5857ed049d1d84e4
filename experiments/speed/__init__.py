"""How fast the cells and the loop are, against what people use today: `python -m experiments.speed`."""
