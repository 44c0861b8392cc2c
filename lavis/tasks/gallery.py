"""A fixed random draw of finished rows for a report, kept in bounded memory as rows stream by."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from typing import Any


class Gallery:
    """Keeps some rows of each kind; the same rows whatever order they come in.

    Args:
        count: rows shown, shared evenly by the kinds.
        titles: kind -> title, in the order of the page.
        kind_of: names the kind of a payload.
    """

    def __init__(
        self, count: int, titles: Mapping[str, str], kind_of: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self._each = -(-count // len(titles))
        self._titles, self._kind_of = titles, kind_of
        self._kept: dict[str, list[tuple[float, int, dict[str, Any]]]] = {k: [] for k in titles}

    def offer(self, row: int, payload: dict[str, Any]) -> None:
        """Take note of a row."""
        if not self._each:
            return
        kept = self._kept[self._kind_of(payload)]
        entry = (random.Random(row).random(), row, payload)
        if len(kept) < self._each:
            heapq.heappush(kept, entry)
        elif entry[:2] > kept[0][:2]:
            heapq.heapreplace(kept, entry)

    def chosen(self) -> dict[str, list[dict[str, Any]]]:
        """Return title -> payloads with their `row`, in the order of the data set."""
        found = {}
        for kind, kept in self._kept.items():
            if kept:
                rows = sorted(kept, key=lambda entry: entry[1])
                found[self._titles[kind]] = [{"row": row, **payload} for _, row, payload in rows]
        return found
