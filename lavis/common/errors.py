"""Errors that are shown to users, and the nearest-name hint they carry."""

from __future__ import annotations

import difflib
import errno
import functools
from collections.abc import Iterable
from typing import Any

_LASTING = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
)


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
    """One record cannot be used; the run sets it aside with `reason` and goes on.

    Args:
        reason: a fixed phrase, a colon, and what was found.
        paths: files that are not there, or are no picture: once they change, the record may do.
        may_pass: the fault may pass without a change to any file, as a disk's or a server's does:
            the next start tries the record again.
    """

    def __init__(self, reason: str, *, paths: Iterable[str] = (), may_pass: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.paths, self.may_pass = reason, tuple(paths), may_pass

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Survive pickling between data-loading processes."""
        make = functools.partial(type(self), paths=self.paths, may_pass=self.may_pass)
        return make, (self.reason,)


def may_pass(error: BaseException) -> bool:
    """Return whether what the system refused may be granted later, the files being as they are.

    A file that is missing is none of this: it is noted, and looked for by the next start. Nor is
    what a decoder says of a picture's bytes, which comes without an error number.
    """
    number = getattr(error, "errno", None)
    return isinstance(error, MemoryError) or (number is not None and number not in _LASTING)


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
