"""Try every language model that the installed transformers maps, as a tiny random one.

    python scripts/check_families.py                        # all, one line each
    python scripts/check_families.py --markdown table.md    # the table of projects/vlmig/README.md
    python scripts/check_families.py causal:llama masked:bert

Each family is built, saved, loaded and compared with plain transformers code: probabilities of
texts, alone and in batches padded on either side, the block at its start, images, greedy words
and beams with and without a cache, shared beginnings. It is right, or refused in a sentence, or no
tiny model of it could be made; the exit status is 1 where one is wrong or ends in a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lavis.common.command import command
from lavis.common.storage.atomic import write_text


@command
def main() -> int:
    """Print a line for each family, and how many there are of each outcome."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", nargs="*", help="kind:model_type, such as causal:llama")
    parser.add_argument("--markdown", type=Path, help="also write the table into this file")
    parser.add_argument("--seconds", type=float, default=120, help="allowed for one family")
    args = parser.parse_args()
    import transformers

    from projects.checks.families.sweep import (  # after the flags: --help loads no torch
        markdown,
        sweep,
    )
    from projects.checks.families.tiny import KINDS, model_types

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    families = [tuple(name.split(":")) for name in args.family] or [
        (kind, model_type) for kind in KINDS for model_type in model_types(kind)
    ]
    outcomes = []
    for outcome in sweep(families, args.seconds):
        outcomes.append(outcome)
        print(
            f"{outcome.outcome:9} {outcome.kind}:{outcome.model_type}  {outcome.note}", flush=True
        )
    counted = Counter((one.kind, one.outcome) for one in outcomes)
    for (kind, word), count in sorted(counted.items()):
        print(f"{kind} {word}: {count}")
    if args.markdown is not None:
        write_text(args.markdown, markdown(outcomes))
    return int(any(outcome.is_fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
