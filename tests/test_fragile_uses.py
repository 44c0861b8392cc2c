"""Private names of libraries are listed in CONTRIBUTING.md, each with a test that exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from shape_noise import ShapeNoise

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTION = TEXT.partition("## Fragile uses of libraries")[2].partition("\n## ")[0]
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in SECTION.splitlines()
    if line.startswith("| ") and "`" in line
]
SOURCES = sorted(
    p for name in ("lavis", "scripts", "projects") for p in (ROOT / name).rglob("*.py")
)
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"}  # of named tuples
MODULES = re.compile(r"(^|\.)_|^transformers\.models\.\w+\.(modeling|tokenization)_")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_names(tree: ast.AST) -> set[str]:
    """Return private names that a module gives to its own things."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if is_private(name)}


def private_uses(tree: ast.AST, own: set[str]) -> set[str]:
    """Return private attributes and modules of others that a module names.

    An attribute of `self`, or one with a name that this package gives to things of its own, is
    taken for its own.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            if MODULES.search(node.module) and not node.level:
                found.add(node.module)
            found |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if MODULES.search(alias.name)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            texts = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
            found |= {text for text in texts if is_private(str(text))}
    return found - own - DOCUMENTED


@cache
def trees() -> dict[Path, ast.AST]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def test_every_private_use_is_in_the_table():
    own = set().union(*(defined_names(tree) for tree in trees().values()))
    listed = {(where.strip("`"), use) for use, where, *_ in ROWS}
    for path, tree in trees().items():
        name = str(path.relative_to(ROOT))
        texts = " ".join(use for where, use in listed if where == name)
        missing = sorted(use for use in private_uses(tree, own) if f"`{use}`" not in texts)
        assert not missing, f"{name}: {missing}; use a public name, or add a row with its test"


def test_a_private_use_is_found():
    tree = ast.parse(
        "from transformers.models.bert.modeling_bert import X\nimport torch._dynamo\n"
        "model._secret(self._mine); getattr(x, '_hidden', None); row._asdict(); x.__len__()"
    )
    found = {"transformers.models.bert.modeling_bert", "torch._dynamo", "_secret", "_hidden"}
    assert private_uses(tree, {"_mine"}) == found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_row_names_what_is_there(row):
    use, where, why, test = row
    text = (ROOT / where.strip("`")).read_text()
    for name in re.findall(r"`([\w.]+)`", use):
        assert name.split(".")[-1] in text, f"{where} no longer uses {name}; remove the row"
    assert why
    path, _, function = test.strip("`").partition("::")
    assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE), test


def test_the_plugin_tells_equal_shapes_from_others():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=generator) for _ in range(2))
    whole = left @ right
    with ShapeNoise():
        one, two, half = left @ right, left @ right, left[:32] @ right
    assert torch.equal(one, two) and not torch.equal(one[:32], half)
    torch.testing.assert_close(one, whole, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(half, whole[:32], rtol=1e-6, atol=1e-5)
