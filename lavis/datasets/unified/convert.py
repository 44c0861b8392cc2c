"""Convert the items of a published file to a record file: streamed, rejects with reasons."""

from __future__ import annotations

import abc
import argparse
import contextlib
import dataclasses
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.command import at_least, check_outputs, command
from lavis.common.errors import NothingDoneError, RecordError, record_errors
from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.files.items import FileItem, read_items
from lavis.datasets.files.json_values import json_line


class _NoRecordError(Exception):
    """Abandons the writing of a file that would be empty."""


def flag(
    default: Any = dataclasses.MISSING,
    name: str | None = None,
    variable: str | None = None,
    **options: Any,
) -> Any:
    """Return a converter's field that is a flag of its command, positional without a default.

    Args:
        default: of the field and the flag.
        name: of the flag, where it is not the field's.
        variable: of the environment; where it is set, its value is the flag's default.
        options: of `ArgumentParser.add_argument`.
    """
    metadata = {"name": name, "variable": variable, "options": options}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Converter(abc.ABC):
    """Reads one benchmark's published files; its fields are the flags of its command.

    Attributes:
        annotations: the published file.
        image_prefix: path prefix of an image's published name.
    """

    annotations: Path = flag(type=Path, help="the published file")
    image_prefix: str = flag("", help="folder of the images below the root of all")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add a flag for each field."""
        for field in dataclasses.fields(cls):
            if not field.init:
                continue
            options = dict(field.metadata.get("options", {}))
            if field.default is dataclasses.MISSING and not options.get("required"):
                parser.add_argument(field.name, **options)
                continue
            name = field.metadata.get("name") or f"--{field.name.replace('_', '-')}"
            default = None if options.get("required") else field.default
            default = os.environ.get(field.metadata.get("variable") or "") or default
            parser.add_argument(name, dest=field.name, default=default, **options)

    def items(self) -> Iterator[FileItem]:
        """Yield the items of the files, in order."""
        return read_items(self.annotations)

    @abc.abstractmethod
    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        """Return the records of one item; raises `RecordError` where it cannot be used."""


def convert(
    converter: Converter, output: Path, *, rejects: Path, limit: int | None = None
) -> dict[str, Any]:
    """Write the records and the rejects.

    An item that lacks a field or has one of another type is a reject, like one whose regions cannot
    be drawn.

    Args:
        output: record file.
        rejects: lines of file, place and reason.
        limit: stop after so many records.

    Returns:
        `items`, `records`, `rejected`, `reasons` (fixed phrase -> count).

    Raises:
        NothingDoneError: no record could be made; `rejects` is written, `output` is left as it was.

    Example:
        >>> converter = AokvqaConverter(annotations=Path("aokvqa_v1p0_val.json"))
        >>> convert(converter, Path("aokvqa.jsonl"), rejects=Path("rejects.jsonl"))
        {'items': 1145, 'records': 1145, 'rejected': 0, 'reasons': {}}
    """
    counts: Counter[str] = Counter(items=0, records=0, rejected=0)
    reasons: Counter[str] = Counter()
    with (
        AtomicFile(rejects) as bad,
        contextlib.suppress(_NoRecordError),
        AtomicFile(output) as lines,
    ):
        for item in converter.items():
            if limit is not None and counts["records"] >= limit:
                break
            counts["items"] += 1
            try:
                if item.error is not None:
                    raise RecordError(item.error)
                with record_errors():
                    made = list(converter.records(item.value))
            except RecordError as error:
                counts["rejected"] += 1
                reasons[error.reason.split(":", 1)[0]] += 1
                bad.write(_line({**item.place, "reason": error.reason}))
                continue
            for record in made[: None if limit is None else limit - counts["records"]]:
                lines.write(_line(record))
                counts["records"] += 1
        if not counts["records"]:
            raise _NoRecordError  # the file is given up, and what was there before stays
    if not counts["records"]:
        raise NothingDoneError(
            f"{output}: not written, as no record could be made of {counts['items']} items"
            + "".join(f"; {count} set aside, {reason}" for reason, count in reasons.most_common(3))
            + (f"; reasons by item: {rejects}" if reasons else "")
        )
    return {**counts, "reasons": dict(reasons.most_common())}


def _line(value: Mapping[str, Any]) -> bytes:
    return json_line(value) + b"\n"


@command
def run_converter(cls: type[Converter], description: str, argv: Sequence[str] | None = None) -> int:
    """Convert what the flags name.

    Returns:
        The exit status: 0 every item is converted, 1 some are set aside; see also
        `lavis.common.command`.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cls.add_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="record file (.jsonl)")
    parser.add_argument("--rejects", type=Path, help="default: <output>.rejects.jsonl")
    parser.add_argument("--limit", type=at_least(1), help="stop after so many records")
    options = vars(parser.parse_args(argv))
    output, rejects, limit = (options.pop(name) for name in ("output", "rejects", "limit"))
    rejects = rejects or output.with_name(f"{output.name}.rejects.jsonl")
    check_outputs([output, rejects], [v for v in options.values() if isinstance(v, Path)])
    result = convert(cls(**options), output, rejects=rejects, limit=limit)
    sys.stdout.write(f"{result['records']} records of {result['items']} items in {output}\n")
    for reason, count in result["reasons"].items():
        sys.stdout.write(f"  set aside, {reason}: {count}\n")
    if result["rejected"]:
        sys.stdout.write(f"reasons by item: {rejects}\n")
    return 1 if result["rejected"] else 0
