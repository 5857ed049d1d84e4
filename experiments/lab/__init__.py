"""The long-range laboratory: what its experiments share.

An experiment is one file of `experiments/` that ends in `EXPERIMENT = Experiment(...)`, see `experiment`,
which also runs it as a command. `store` keeps every piece of work, so that a stopped experiment goes on;
`runs` has configs and rows of training runs; `statistics` medians, intervals, fits and verdicts, `survival`
steps that are censored, `ranking` scores of two groups or of many cells; `freshness` says whether evidence is
that of today's code; `probes` looks inside cells and trained models, `units` at what their gates do;
`identity` compares two programs; `layers`, `critical_path` and `timing` are about what runs how fast,
`convergence` about Newton's method; `style` is how figures look.
"""
