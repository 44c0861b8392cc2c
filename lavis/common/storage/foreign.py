"""Detects files that are not what their name says: pointers, web pages, empty downloads.

A clone without Git LFS, a download behind a login and a server's error all leave a small text under
the expected name, which readers of weights, images or records would only call broken.
"""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = 1024  # bytes looked at
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/\S+\s+oid sha256:")
_ANNEX = re.compile(rb"(?:\.\./|/)*(?:\.git/)?annex/objects/")
_PAGE = re.compile(rb"(?i)(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.DOTALL)
_XML = re.compile(rb"(?i)<\?xml\b|<Error>")


def foreign_kind(head: bytes) -> str | None:
    """Return a phrase to follow "is", with a fix, for first bytes of a foreign file; else None."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _POINTER.match(text):
        return "a Git LFS pointer, not the file itself; run `git lfs pull`, or download the file"
    if _ANNEX.match(text):
        return "a git-annex pointer, not the file itself; run `git annex get`"
    if _PAGE.match(text):
        return (
            "an HTML page, not the file itself: a login, a warning or an error page was saved; "
            "download the file again"
        )
    if _XML.match(text):
        return "an XML answer of a server, not the file itself; download the file again"
    return None


def foreign_kind_of(path: str | Path, *, offset: int = 0) -> str | None:
    """Return `foreign_kind` of a file (an empty one included) from `offset` on; None if missing."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            head = file.read(_HEAD)
    except OSError:
        return None
    return foreign_kind(head) if head else "empty; copy or download it again"
