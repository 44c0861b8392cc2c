"""Errors that are shown to users, and the nearest-name hint they carry."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import logging
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
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
    """A command ended without a single result; it has written the known reasons."""


class RecordError(DataError):
    """One record cannot be used; the run sets it aside with `reason` and goes on.

    Args:
        reason: a fixed phrase, a colon, and the details.
        paths: files that are missing or no images: once they change, the record is tried again.
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
    """Return whether the system's error may pass while the files stay as they are.

    Not so a missing file, which is noted and looked for by the next start, nor a decoder's
    complaint about an image's bytes, which has no error number.
    """
    number = getattr(error, "errno", None)
    return isinstance(error, MemoryError) or (number is not None and number not in _LASTING)


def nearest(name: str, names: Iterable[str], *, most: int = 3) -> str:
    """Return `"; did you mean 'x' or 'y'?"` with at most `most` names, or all valid names."""
    valid = sorted(set(names))
    close = difflib.get_close_matches(name, valid, n=most, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not valid:
        return ""
    shown = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"; valid: {shown}"


logger = logging.getLogger(__name__)

# OverflowError and decimal's errors are ArithmeticErrors, UnicodeError and JSONDecodeError are
# ValueErrors; pyarrow's own derive from these or from NotImplementedError.
REFUSALS: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, NotImplementedError),
)
# What decoders of images and archives raise besides, files that cannot be read included.
DECODE_REFUSALS: tuple[type[Exception], ...] = (
    *REFUSALS,
    *(OSError, EOFError, SyntaxError, struct.error, zlib.error),
)
_LONGEST = 120  # characters of an error that are shown


@contextlib.contextmanager
def record_errors(what: str = "wrong type", *, decoding: bool = False) -> Iterator[None]:
    """Turn every refusal inside the block into one `RecordError`; also a decorator.

    A missing key says "missing field: KEY". Errors that are for users already pass unchanged.

    Args:
        what: fixed phrase before the colon of the reason.
        decoding: the block also reads and decodes bytes, see `DECODE_REFUSALS`.
    """
    try:
        yield
    except (ConfigError, DataError):
        raise
    except DECODE_REFUSALS as error:
        if not decoding and not isinstance(error, REFUSALS):
            raise
        logger.debug("a record is refused", exc_info=True)
        if isinstance(error, KeyError) and len(error.args) == 1:
            raise RecordError(f"missing field: {printable(str(error.args[0]))[:60]}") from None
        raise RecordError(f"{what}: {brief(error)}", may_pass=may_pass(error)) from None


@contextlib.contextmanager
def data_errors(what: str, *others: type[Exception]) -> Iterator[None]:
    """Turn every refusal of a file's bytes, and `others`, into a `DataError`: "WHAT: reason"."""
    try:
        yield
    except DataError:
        raise
    except (*DECODE_REFUSALS, *others) as error:
        raise DataError(f"{what}: {brief(error)}") from None


def brief(error: BaseException) -> str:
    """Return an error's message in one short line, or its type where it has none.

    Addresses in memory are left out, so that a reason is the same in every run.
    """
    text = " ".join(printable(str(error)).split())
    text = re.sub(r" at 0x[0-9a-fA-F]+>", ">", text)
    return text[:_LONGEST] or type(error).__name__


def printable(text: str | os.PathLike[str]) -> str:
    r"""Return text that UTF-8 can hold: undecodable bytes of file names become `\xe9`.

    The system gives such bytes as lone surrogates, which no result file can hold.
    """
    text = os.fspath(text)
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON may hold
        content = text.encode("utf-8", "surrogatepass")
    return content.decode("utf-8", "backslashreplace")


def finite(value: Any) -> float | None:
    """Return a number as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None
