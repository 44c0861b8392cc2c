"""All families tried one after another, and the table of what became of them."""

from __future__ import annotations

import logging
import multiprocessing
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import transformers

from projects.checks.families.checks import (
    BROKEN,
    NOT_BUILT,
    REFUSED,
    RIGHT,
    WRONG,
    Outcome,
    check_family,
)
from projects.checks.families.tiny import KINDS

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
