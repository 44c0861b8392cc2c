"""Rows on their way to a task's results, watched for a score among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lavis.common.storage.journal import JournalReader

_REJECT = b'{"reject": '  # a payload of `BaseTask.reject` begins so


class WatchedRows:
    """A journal's rows, in data-set order, and whether any of those that passed was scored."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._rows = 0
        self._scored = False
        self._reasons: Counter[str] = Counter()

    def iterate_raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, the payload's JSON text)."""
        if not self._scored:  # a task may read the rows more than once
            self._rows = 0
            self._reasons.clear()
        for row, raw in self._reader.iterate_raw():
            if not self._scored:
                self._note(raw)
            yield row, raw

    def iterate(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number, payload)."""
        for row, raw in self.iterate_raw():
            yield row, json.loads(raw)

    def nothing(self, name: str) -> str | None:
        """Return a sentence where no row was scored, with the commonest reasons; None elsewhere.

        Args:
            name: of the result.
        """
        if self._scored:
            return None
        reasons = ", ".join(f"{why} ({count})" for why, count in self._reasons.most_common(3))
        return f"{name}: none of {self._rows} records could be scored: {reasons}; see rejects.jsonl"

    def _note(self, raw: bytes) -> None:
        self._rows += 1
        if raw.startswith(_REJECT):
            self._reasons[json.loads(raw)["reject"].split(":")[0]] += 1
        else:
            self._scored = True
            self._reasons.clear()
