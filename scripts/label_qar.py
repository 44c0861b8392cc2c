"""Let people judge localized question-answer-rationale records, on a page of this machine.

    python scripts/label_qar.py corpus.jsonl --image-root images --out labels --annotators ann,bo
    python scripts/label_qar.py corpus.jsonl --image-root images --out labels --export

The page shows the image with its drawn regions; `?annotator=bo` in its address opens another
person's queue. Every judgement is on the disk before the next record appears, and a restart goes on
there. `unsure` takes a record out of the queue but is no label. `--export` opens no page: it writes
`critic_train.jsonl` (what the critic is trained on), `comments.jsonl` and `agreement.json` (Cohen's
and Fleiss' kappa). Exit status: 0 done, 2 something cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import at_least, command
from lavis.ui.label.session import run_session
from lavis.ui.serve import page_parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = page_parser((__doc__ or "").split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, help="folder of judgements and exports")
    parser.add_argument(
        "--annotators", help="names, as ann,bo,cy (default: those who judged, else 'annotator')"
    )
    parser.add_argument("--per-item", type=at_least(1), help="people per record (default: all)")
    parser.add_argument(
        "--limit", type=at_least(1), help="label only so many rows, drawn at random"
    )
    parser.add_argument("--order", choices=["shuffled", "file"], default="shuffled")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the order")
    parser.add_argument("--steps", type=int, default=3, help="scores from 0 to 1: 2 to 5 steps")
    parser.add_argument("--no-scores", action="store_true", help="scores may be left out")
    parser.add_argument("--export", action="store_true", help="write the results, open no page")
    parser.add_argument(
        "--majority", action="store_true", help="export: also write reject_label by majority"
    )
    parser.add_argument(
        "--min-annotators", type=int, default=1, help="export: leave out records with fewer"
    )
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> None:
    """Label, or export what was labelled."""
    run_session(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
