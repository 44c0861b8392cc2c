"""Draw who imports whom in `lavis`, from the code, as the mermaid figure of CONTRIBUTING.md.

    python scripts/draw_walks.py          # print the figure
    python scripts/draw_walks.py --write  # put it into CONTRIBUTING.md

A box is a folder of `lavis`; an arrow leads from the one that imports to the one that is imported.
`common`, which all import, has no arrows, and an arrow that a longer way replaces is left out.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lavis.common.command import DONE, command
from lavis.common.storage.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- scripts/draw_walks.py writes from here -->", "<!-- to here -->"


def imported_folders(path: Path) -> set[str]:
    """Return the folders of `lavis` that a module imports, those of types alone included."""
    folders = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        folders |= {name.split(".")[1] for name in names if name.startswith("lavis.")}
    return folders


def import_graph(package: Path) -> dict[str, set[str]]:
    """Return the other folders that each folder of a package imports."""
    folders = {path.parent for path in package.glob("*/__init__.py")}
    used = {one.name: set().union(*map(imported_folders, one.rglob("*.py"))) for one in folders}
    names = {
        name for name in used if any(used[name]) or any(name in other for other in used.values())
    }
    return {name: (used[name] & names) - {name} for name in sorted(names)}


def reachable(graph: dict[str, set[str]], name: str) -> set[str]:
    """Return all folders that one imports, directly or through others."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def figure(package: Path = ROOT / "lavis") -> str:
    """Return the mermaid block."""
    graph = import_graph(package)
    lines = ["```mermaid", "flowchart TD", *(f"  {name}" for name in graph)]
    for name, used in graph.items():
        through = set().union(*(reachable(graph, other) for other in used))
        lines += [f"  {name} --> {other}" for other in sorted(used - through - {"common"})]
    return "\n".join([*lines, "```"])


@command
def main() -> int:
    """Print the figure, or write it; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put it into CONTRIBUTING.md")
    if not parser.parse_args().write:
        print(figure())
        return DONE
    page = ROOT / "CONTRIBUTING.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    write_text(page, f"{head}{BEGIN}\n{figure()}\n{END}{tail}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
