"""Time filtering against a plainly written baseline, on the same records and weights.

    python scripts/bench_filtering.py                    # 1 and 4 texts an image; a merge
    python scripts/bench_filtering.py --texts 4 --merge-rows 0

The baseline does what a first version does: a batch row is a record; every record's image is
decoded, its regions composited over the full image, and encoded; every text is padded to 128
tokens. Ours is `evaluate.py`'s own path: data set, plan, task, journal, result files. Both run in
this process, in turns, with the same threads; their scores must agree to 1e-4.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command


@command
def main() -> None:
    """Run the workloads that the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=48, help="texts in each workload")
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 4], help="per drawn picture")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--merge-rows", type=int, default=1_000_000, help="0 leaves it out")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile's tower")
    args = parser.parse_args()
    from projects.checks.benchmarks.filtering import run  # after the flags: --help loads no torch

    run(args)


if __name__ == "__main__":
    sys.exit(main())
