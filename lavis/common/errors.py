"""Errors that are shown to users, and the nearest-name hint they carry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key and what to write instead."""


class DataError(ValueError):
    """A file or folder of data cannot be used; the message names it and the fix."""


class RunError(RuntimeError):
    """A run failed or came to nothing, by no fault of its config; the message says what to do.

    Attributes:
        is_consequence: of what another process has to tell.
    """

    is_consequence = False


class NothingDoneError(RunError):
    """A command ended without a single result; it has written what it knows of the reasons."""


class RecordError(DataError):
    """One record cannot be used; the run sets it aside with `reason` and goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self) -> tuple[type[RecordError], tuple[str]]:
        """Survive pickling between data-loading processes."""
        return type(self), (self.reason,)


def nearest(name: str, names: Iterable[str], *, most: int = 3) -> str:
    """Return `"; did you mean 'x' or 'y'?"`, or the valid names where none is near.

    Args:
        name: what the user wrote.
        names: every valid name.
        most: how many near names are shown at the most.
    """
    valid = sorted(set(names))
    close = difflib.get_close_matches(name, valid, n=most, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not valid:
        return ""
    shown = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"; valid: {shown}"
