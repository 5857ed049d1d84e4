"""Data of one's own: read by `files` or `tables` as `sequences`, of which `task` makes rows.

`splits` says what is held out, `pieces` cuts, `inputs` and `targets` are what a model sees and has to say,
`baseline` is the best answer without one.
"""
