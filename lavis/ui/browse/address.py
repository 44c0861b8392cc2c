"""The state of the browser page as the query string of its address.

It holds the selection and nothing else, so it can be shared, kept, and revisited.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from lavis.common.errors import ConfigError
from lavis.ui.browse.query import OTHER_NAMES, Filter

_LONGEST = 20_000  # of an address; browsers take as much
_WORDS = 1000
_IN_ADDRESS = {"page": "p"}  # `page` is what Gradio calls a page of its own
_MOST = 10**12  # page or row


@dataclass(frozen=True, kw_only=True)
class Address:
    """The page's fields as typed, the page number, and the open record.

    Attributes:
        source: any of these; none means all.
        order: see `Filter`.
        open: row of the record that is shown large, or None.
    """

    words: str = ""
    source: tuple[str, ...] = ()
    score_from: str = ""
    score_to: str = ""
    regions_from: str = ""
    regions_to: str = ""
    difference_from: str = ""
    difference_to: str = ""
    order: str = "file"
    page: int = 1
    open: int | None = None

    @classmethod
    def read(cls, query: str | None) -> Address:
        """Parse an address; unknown names, such as a theme's, are ignored."""
        values = parse_qs((query or "")[:_LONGEST].removeprefix("?"), keep_blank_values=False)
        fields: dict[str, Any] = {}
        for name, default in asdict(cls()).items():
            texts = values.get(_IN_ADDRESS.get(name, name))
            if not texts:
                continue
            if name == "source":
                fields[name] = tuple(dict.fromkeys(texts))
            elif name in ("page", "open"):
                fields[name] = _number(texts[-1], default)
            else:
                fields[name] = texts[-1][:_WORDS]
        order = fields.get("order", cls.order)
        return cls(**{**fields, "order": OTHER_NAMES.get(order, order)})

    def write(self, **changes: Any) -> str:
        """Return the address with other values; defaults are left out."""
        address, nothing = replace(self, **changes), Address()
        pairs: list[tuple[str, str]] = []
        for name, value in asdict(address).items():
            if value == getattr(nothing, name):
                continue
            values = value if isinstance(value, tuple) else (value,)
            pairs += [(_IN_ADDRESS.get(name, name), str(one)) for one in values]
        return "?" + urlencode(pairs)

    def toggle_source(self, name: str) -> str:
        """Return the address with a source added, or removed if present."""
        others = tuple(one for one in self.source if one != name)
        source = others if name in self.source else (*self.source, name)
        return self.write(source=source, page=1, open=None)

    def filter(self) -> Filter:
        """Return the selection; raises `ConfigError` for a bad order, number or pair of bounds."""
        bounds = {
            name: tuple(
                read_bound(getattr(self, f"{name}_{end}"), f"{name} {end}")
                for end in ("from", "to")
            )
            for name in ("score", "regions", "difference")
        }
        return Filter(
            text=self.words.strip(),
            sources=self.source,
            order=self.order,
            **bounds,  # type: ignore[arg-type]  # pairs
        )


def _number(text: str, default: int | None) -> int | None:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        return default
    return min(int(digits[:15]), _MOST)


def read_bound(value: str | float | None, name: str) -> float | None:
    """Return a bound as a number, None if empty; raises `ConfigError` for anything else."""
    if value is None or not str(value).strip():
        return None
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ConfigError(f"{name}: {str(value)[:40]!r} is not a number")
    return number
