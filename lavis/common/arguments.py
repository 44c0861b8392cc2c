"""What every command asks of its arguments before it begins."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lavis.common.errors import ConfigError

Place = str | os.PathLike[str]


def at_least(least: int) -> Callable[[str], int]:
    """Return a `type` for argparse: whole numbers of at least `least`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} found, expected {least} or more")
        return value

    return number


def check_outputs(outputs: Iterable[Place | None], inputs: Iterable[Place] = ()) -> None:
    """Refuse a command that would write over what it reads, or over its own other output.

    Args:
        outputs: files that are written; None where one is not asked for.
        inputs: files that are read.

    Raises:
        ConfigError: two of them are one file, by whatever name.
    """
    read = {os.path.realpath(path) for path in inputs}
    written: set[str] = set()
    for path in outputs:
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in read:
            raise ConfigError(f"{Path(path)}: is read by this command; name another output")
        if real in written:
            raise ConfigError(f"{Path(path)}: would be written twice; name two files")
        written.add(real)
