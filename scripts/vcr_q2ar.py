"""Join VCR's Q -> A and QA -> R into Q -> AR: an item counts where both are right.

    python scripts/vcr_q2ar.py output/vcr_qa output/vcr_qar --output output/vcr_q2ar.json

The arguments are the output folders of the two runs, or their `result/*.jsonl`. Items of one run
only are left out and counted. Intervals are 95 % bootstrap intervals over items.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import at_least, command
from lavis.common.storage.atomic import write_json
from lavis.tasks.comparison.joint_accuracy import joint_accuracy, read_results

TITLES = {"first": "Q -> A", "second": "QA -> R", "both": "Q -> AR"}


@command
def main(argv: list[str] | None = None) -> None:
    """Print the three accuracies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("qa", type=Path, help="run of vcr_qa.yaml")
    parser.add_argument("qar", type=Path, help="run of vcr_qar.yaml")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    parser.add_argument("--resamples", type=at_least(1), default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(argv)
    accuracy = joint_accuracy(
        read_results(args.qa), read_results(args.qar), resamples=args.resamples, seed=args.seed
    )
    print(f"{accuracy['items']} items in both runs, {accuracy['left_out']} in one only")
    for name, title in TITLES.items():
        part = accuracy[name]
        spread = "[{:.2f}, {:.2f}]".format(*part["interval"]) if part["interval"] else ""
        print(f"{title:8s} {part['value']:6.2f} {spread}  chance {part['chance']:.2f}")
    if args.output:
        write_json(args.output, accuracy)


if __name__ == "__main__":
    sys.exit(main())
