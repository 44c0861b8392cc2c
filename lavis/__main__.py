"""`python -m lavis train|evaluate ...`: what train.py and evaluate.py do, without a checkout.

Works under `torchrun -m lavis ...` and `accelerate launch -m lavis ...` as well.
"""

from __future__ import annotations

import sys

from lavis.common.cli import run_front_end
from lavis.common.config.loading import Mode

DESCRIPTIONS: dict[Mode, str] = {
    "train": "Train the model of a run file.",
    "evaluate": "Evaluate, score or filter with the model of a run file.",
}
USAGE = """usage: python -m lavis {train,evaluate} [flags]

Run files of the package go by their names in a checkout: --cfg-path lavis/projects/...yaml
`python -m lavis evaluate --help` lists the flags.
"""


def main() -> int:
    """Run the command that the first argument names; returns its exit status.

    Example:
        ``torchrun --nproc_per_node=4 -m lavis evaluate --cfg-path
        lavis/projects/vlmig/eval/piqa.yaml --options run.output_dir=output/piqa``
    """
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    for mode, description in DESCRIPTIONS.items():
        if command == mode:
            sys.argv[:2] = [f"python -m lavis {command}"]  # as argparse shall call it
            return run_front_end(description, mode)
    is_help = command in ("-h", "--help")
    (sys.stdout if is_help else sys.stderr).write(USAGE)
    return 0 if is_help else 2


if __name__ == "__main__":
    sys.exit(main())
