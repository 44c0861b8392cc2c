"""The command of every converter: flags, progress, and what was written."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lavis.common.command import at_least, check_outputs, command
from lavis.datasets.unified.convert import Converter, convert


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
    given = vars(parser.parse_args(argv))
    output, rejects, limit = (given.pop(name) for name in ("output", "rejects", "limit"))
    rejects = rejects or output.with_name(f"{output.name}.rejects.jsonl")
    read = [value for value in given.values() if isinstance(value, Path)]
    check_outputs([output, rejects], read)
    found = convert(cls(**given), output, rejects=rejects, limit=limit)
    sys.stdout.write(f"{found['records']} records of {found['items']} items in {output}\n")
    for reason, count in found["reasons"].items():
        sys.stdout.write(f"  set aside, {reason}: {count}\n")
    if found["rejected"]:
        sys.stdout.write(f"reasons by item: {rejects}\n")
    return 1 if found["rejected"] else 0
