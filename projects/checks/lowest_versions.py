"""Write a pip constraints file of the lowest versions that setup.py allows, to standard output.

    python -m projects.checks.lowest_versions > constraints.txt

Torch and torchvision are left to pip: one release of them fills gigabytes, and the CPU wheels of
old releases do not exist for every Python.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

from lavis.common.command import command

SETUP = Path(__file__).resolve().parents[2] / "setup.py"
FREE = ("torch", "torchvision")
_BOUND = re.compile(r"(?P<name>[A-Za-z][\w.-]*)>=(?P<version>\d[\w.]*)")


def lowest_versions(source: str) -> dict[str, str]:
    """Return name and lowest version of each requirement that stands in the text of a setup.py."""
    texts = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant))
    bounds = (_BOUND.fullmatch(text) for text in texts if isinstance(text, str))
    return {bound["name"]: bound["version"] for bound in bounds if bound}


@command
def main(argv: list[str] | None = None) -> None:
    """Print a line a requirement, in the order of names."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args(argv)
    lowest = lowest_versions(SETUP.read_text(encoding="utf-8"))
    for name in sorted(lowest.keys() - set(FREE)):
        sys.stdout.write(f"{name}=={lowest[name]}\n")


if __name__ == "__main__":
    sys.exit(main())
