"""Time late fusion against plainly written baselines, on the same data and weights.

    python scripts/bench_fusion.py                      # evaluation, then the training step
    python scripts/bench_fusion.py --items 8 --skip-step --json fusion.json
    python scripts/bench_fusion.py --quick              # tiny models: agreement only

Evaluation: questions like ImageNetVC's (five prompts, next word) and two-option questions (whole
texts), K images each. The baseline works as the released scripts do: a prompt or an option at a
time, its images encoded for it, patches and text through the whole block K times, logits of all
their positions over the whole vocabulary. Ours is `evaluate.py`'s own path: data set, task,
journal, result files. Making and weighing images is excluded on both sides: the baseline has them
decoded in memory, ours reads them from the store that a generator filled.

Training: see `bench_fusion_step.py`, which this starts for each way, as memory is a process's.
Sizes are those of Gemma-3-270M (`--llm gpt2`: GPT-2) and CLIP ViT-B/32, weights are random. With
GPT-2 the tower is most of either side, which bounds the ratio: what is saved grows with the head.
Answers must agree to 1e-4, else the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command

LLMS = ("gemma", "gpt2")
PER = ("question", "prompt")  # who has images of its own


@command
def main() -> int:
    """Run the benchmarks that the flags ask for; exit with 1 where answers disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=4, help="questions in each set")
    parser.add_argument("--images", type=int, default=10, help="pictures of a text")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--llm", choices=LLMS, default="gemma", help="whose sizes")
    parser.add_argument("--sets", nargs="+", default=["imagenetvc", "piqa"])
    parser.add_argument("--per", nargs="+", default=PER, choices=PER)
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--skip-step", action="store_true", help="leave the training step out")
    parser.add_argument("--quick", action="store_true", help="tiny models, for the agreement only")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    from projects.checks.benchmarks.fusion import run  # after the flags: --help loads no torch

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
