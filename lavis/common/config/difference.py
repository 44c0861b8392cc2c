"""JSON-able trees by dotted key, and the keys in which two of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def difference(there: Mapping[str, Any], here: Mapping[str, Any], most: int = 5) -> str:
    """Say which keys differ, with both values: `run.seed is 1 there and 2 here`; '' if none."""
    old, new = dict(flat(there)), dict(flat(here))
    parts = [
        f"{key} is {_short(old, key)} there and {_short(new, key)} here"
        for key in sorted({*old, *new})
        if key not in old or key not in new or old[key] != new[key]
    ]
    rest = f", and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + rest


def _short(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key])[:100] if key in flat else "absent"


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves as `a.b.c` -> value; items of a list of mappings are named by number."""
    if isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        tree = {str(place): item for place, item in enumerate(tree)}
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
