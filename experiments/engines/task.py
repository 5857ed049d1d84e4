"""Trains one run of a list of them: what a task of a cluster's array does.

  python -m experiments.engines.task runs/sweep/jobs.json NUMBER

At SIGTERM, which schedulers send before they take the machine away, it keeps a checkpoint and exits with 143;
the same task again goes on from there. A run that has finished is left alone.
"""

import json
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Trains; returns the exit code."""
    from experiments import results
    from experiments.engines.worker import outcome
    from train import host
    from train.config import RunConfig

    host.prepare(allocator="default")
    try:
        asked = json.loads(Path(argv[0]).read_text())[int(argv[1])]
    except (OSError, ValueError, IndexError) as error:
        print(f"error: {' '.join(argv)}: {error}", file=sys.stderr)
        return 2
    ended = outcome(asked)
    print(f"{asked['name']}: {ended['kind']}: {ended['line']}", flush=True)
    if ended["kind"] in ("done", "failed"):
        line = ended["line"] if ended["kind"] == "failed" else None
        results.mark_failed(asked["folder"], line, RunConfig.from_dict(asked["config"]))
    return {"done": 0, "failed": 1, "busy": 75, "stopped": 143}[ended["kind"]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
