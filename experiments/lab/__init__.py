"""The long-range laboratory: what its experiments share.

An experiment is a module of `experiments/` with

    Settings, PRESETS   a frozen dataclass, and its values for "quick", "fast" and "full"
    measure(settings, lab) -> {name: DataFrame}, every row one measurement of one seed
    tables(frames) -> {title: DataFrame of strings}
    figures(frames) -> {name: Figure}
    verdicts(frames) -> {claim: Verdict}: the words follow from the numbers by rules written there

`study` runs it as a command, `store` keeps every piece of work so that a stopped experiment goes on,
`statistics` has medians, intervals and fits, `probes` looks inside cells and trained models.
"""
