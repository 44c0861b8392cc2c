"""Time and weigh one training step of late fusion against a plain one of the same weights.

    python scripts/bench_fusion_step.py                 # 32 texts of 128 tokens, GPT-2 and ViT-B/32
    python scripts/bench_fusion_step.py --quick         # tiny models: agreement only

Three ways, each in a process of its own, as memory is a process's:

    plain    library modules: patches and text through the whole block, logits of all positions
    ours     the model's own loss
    cached   ours, with vision features and text states read from the caches of a run

A step is forward, backward and AdamW; the fastest counts, as other work on the machine only adds.
Memory is the peak of resident memory over the step, above what the process holds with the model and
the data in place. Loss and gradients must agree to 1e-4, gradients relative to the largest one of
their weight; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command


@command
def main() -> int:
    """Measure all ways, or the one this process was started for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=2, help="timed ones, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2, help="of all ways, one after another")
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--quick", action="store_true", help="tiny models, for the agreement only")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "--way", choices=("plain", "ours", "cached"), help="measure one way in this process"
    )
    parser.add_argument("--folder", type=Path, help="where --way puts its gradients")
    args = parser.parse_args()
    from projects.checks.benchmarks.fusion_step import run  # after the flags: --help loads no torch

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
