"""How one odd value costs one record: every refusal of a parse becomes a `RecordError`.

What a parser raises on odd input is an open set: `int()` of 5000 digits is a ValueError, of
infinity an OverflowError, deep nesting a RecursionError, a huge list a MemoryError. Readers name
what they read and leave the list to this module.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from lavis.common.errors import ConfigError, DataError, RecordError, may_pass

logger = logging.getLogger(__name__)

# OverflowError and decimal's errors are ArithmeticErrors, UnicodeError and JSONDecodeError are
# ValueErrors; pyarrow's own derive from these or from NotImplementedError.
REFUSALS: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, NotImplementedError),
)
# What decoders of pictures and archives raise besides, files that cannot be read included.
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


def brief(error: BaseException) -> str:
    """Return an error's message in one short line, or its type where it has none."""
    text = " ".join(printable(str(error)).split())
    return text[:_LONGEST] or type(error).__name__


def printable(text: str | os.PathLike[str]) -> str:
    r"""Return text that UTF-8 can hold: undecodable bytes of file names become `\xe9`.

    Names that the system gives keep such bytes as lone surrogates, which no result file can hold.
    """
    text = os.fspath(text)
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON may hold
        content = text.encode("utf-8", "surrogatepass")
    return content.decode("utf-8", "backslashreplace")


def finite(value: Any) -> float | None:
    """Return a number as a float, or None for what is no number or not finite as one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None
