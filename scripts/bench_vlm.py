"""Time a vision-language critic on 4 and 16 texts of an image, against one text after another.

    python scripts/bench_vlm.py                # 110 million random weights, images of 448 pixels
    python scripts/bench_vlm.py --quick        # tiny: agreement only

One by one is plain transformers code: chat template, processor, and a forward for each text. At
once is `VlmCritic.predict`: the image and what its prompts begin with run once, the texts branch
from their keys and values. P(yes) must agree to 1e-4, and at once must be 2 times (4 texts) and 4
times (16 texts) faster; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command


@command
def main() -> int:
    """Measure both ways."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--edge", type=int, default=448, help="of the square images, pixels")
    parser.add_argument("--rounds", type=int, default=2, help="of both ways, one after the other")
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--quick", action="store_true", help="a tiny model, for the agreement only")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    from projects.checks.benchmarks.vlm import run  # after the flags: --help loads no torch

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
