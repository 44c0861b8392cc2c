"""Who may import whom, and that importing is light; the table is house style's."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "common": set(),
    "models": {"common"},
    "processors": {"common"},
    "generators": {"common"},
    "verbalizers": {"common"},
    "llm": {"common"},
    "datasets": {"common", "processors"},
    "tasks": {"common", "datasets", "generators", "verbalizers", "llm"},
    "runners": {"common", "datasets"},
    "__main__.py": {"common"},  # an entry file, as train.py and evaluate.py are
    "ui": {"common", "processors", "datasets"},
    "integrations": {"common", "models", "processors", "datasets", "generators", "tasks", "llm"},
}
NEEDS = {"lavis.integrations.harness": "lm_eval"}  # modules of other people's programs
MODULES = sorted((ROOT / "lavis").rglob("*.py"))


def imported_subpackages(text: str) -> set[str]:
    """Return the second parts of every `lavis.<x>` import in a module."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "lavis" and len(p) > 1}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layering(path):
    layer = path.relative_to(ROOT / "lavis").parts[0]
    if layer == "__init__.py":
        return
    extra = imported_subpackages(path.read_text()) - ALLOWED[layer] - {layer}
    assert not extra, f"{path.name}: {layer} may not import {extra}; pass the object in instead"


def test_an_import_across_layers_is_found():
    assert imported_subpackages("from lavis.models import x\nimport lavis.tasks.base") == {
        "models",
        "tasks",
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_states_its_purpose(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_configuration_modules_import_no_heavy_library():
    code = (
        "import sys, lavis, lavis.models, lavis.common.config.loading, lavis.common.config.run\n"
        "import lavis.models.blip2.config, lavis.datasets.config, lavis.tasks.config\n"
        "heavy = {'torch', 'transformers', 'timm', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_module_imports_with_the_core_dependencies():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
    ]
    modules = [name for name in modules if find_spec(NEEDS.get(name, "lavis"))]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]


def test_only_one_place_asks_whether_the_machine_has_a_gpu():
    """Elsewhere the device that the run computes on decides (`dist.target_device`)."""
    allowed = {"lavis/common/dist.py", "lavis/runners/resume.py"}  # the last reads random states
    asks = {str(p.relative_to(ROOT)) for p in MODULES if "cuda.is_available" in p.read_text()}
    assert asks <= allowed
