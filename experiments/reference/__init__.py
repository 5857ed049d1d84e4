"""Published results beside ours: `python -m experiments.reference`."""
