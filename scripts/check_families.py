"""Try every language model that the installed transformers maps, as a tiny random one.

    python scripts/check_families.py                        # all, one line each
    python scripts/check_families.py --markdown table.md    # the table of projects/vlmig/README.md
    python scripts/check_families.py causal:llama masked:bert

Each family is built, saved, loaded and compared with plain transformers code: probabilities of
texts, alone and in batches padded on either side, the block at its start, pictures, greedy words
and beams with and without a cache, shared beginnings. It is right, or refused in a sentence, or no
tiny model of it could be made; the exit status is 1 where one is wrong or ends in a traceback.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from families.checks import BROKEN, NOT_BUILT, REFUSED, RIGHT, WRONG, Outcome, check_family
from families.tiny import KINDS, model_types

from lavis.common.command import command
from lavis.common.storage import write_text

WORDS = (RIGHT, REFUSED, NOT_BUILT, WRONG, BROKEN)


def sweep(asked: Sequence[tuple[str, str]], seconds: float = 120) -> Iterator[Outcome]:
    """Try families, each in a process of its own, one after another.

    Args:
        asked: kind and model type of each.
        seconds: a family that takes longer is ended and counts as a traceback.
    """
    # forked: the libraries are imported once, not 250 times
    context = multiprocessing.get_context("fork")
    for kind, model_type in asked:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(kind, model_type, theirs))
        process.start()
        theirs.close()
        outcome = Outcome(kind, model_type, BROKEN, f"no answer in {seconds:.0f} s, or killed")
        try:
            if ours.poll(seconds):
                outcome = ours.recv()
        except EOFError:
            pass
        process.kill()
        process.join()
        yield outcome


def _run(kind: str, model_type: str, answer: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        answer.send(check_family(kind, model_type, Path(folder)))


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the table: families of one kind and outcome share a row for each note."""
    lines = [
        f"transformers {transformers.__version__}, tiny random models of all classes it maps:",
        "",
        "| kind | outcome | families | |",
        "|---|---|---|---|",
    ]
    for kind in KINDS:
        for word in WORDS:
            grouped: dict[str, list[str]] = {}
            for one in outcomes:
                if (one.kind, one.outcome) == (kind, word):
                    grouped.setdefault(_reason(one), []).append(one.model_type)
            for note, names in sorted(grouped.items(), key=lambda item: -len(item[1])):
                row = f"{word}: {len(names)} | {', '.join(sorted(names))} | {note}"
                lines.append(f"| {kind} | {row} |")
    return "\n".join(lines) + "\n"


def _reason(outcome: Outcome) -> str:
    """Return a note without what it says of the one family."""
    note = outcome.note.removeprefix("model.llm: ").replace("|", "\\|")
    note = re.sub(r"(an?|this) '[\w-]+'", "it", note)
    return note.removeprefix("it ").removeprefix("cannot be used: ")


@command
def main() -> int:
    """Print a line for each family, and how many there are of each outcome."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", nargs="*", help="kind:model_type, such as causal:llama")
    parser.add_argument("--markdown", type=Path, help="also write the table into this file")
    parser.add_argument("--seconds", type=float, default=120, help="allowed for one family")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    asked = [tuple(name.split(":")) for name in args.family] or [
        (kind, model_type) for kind in KINDS for model_type in model_types(kind)
    ]
    outcomes = []
    for outcome in sweep(asked, args.seconds):
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
