"""What every command owes its user: an answer to `--help` at once, and bars for terminals only."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"torch", "torchvision", "transformers", "diffusers", "accelerate", "timm", "gradio"}
SLOW |= {"scipy", "sklearn", "matplotlib", "pandas", "datasets", "openai", "lm_eval", "peft"}
MODULE = ("-m lavis", "-m lavis train", "-m lavis evaluate")
COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.py", "scripts/*.py", "projects/*/*.py", "projects/*/*/*.py")
    for path in ROOT.glob(pattern)
    if path.name != "setup.py" and "__main__" in path.read_text(encoding="utf-8")
)
PACKAGES = ("projects/checks/", "projects/quickstart/")  # their modules run by `-m`
_IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| +([\w.]+)$", re.MULTILINE)


def test_every_command_is_tried():
    assert {"train.py", "evaluate.py", "scripts/browse.py"} < set(COMMANDS) and len(COMMANDS) > 40


@pytest.mark.parametrize("command", [*MODULE, *COMMANDS])
def test_help_loads_no_slow_library(command):
    # The interpreter lists what it imports: a count of modules, no time of a busy machine.
    name = command.removesuffix(".py").replace("/", ".")
    is_module = command.startswith(PACKAGES)
    named = ["-m", name] if is_module else [str(ROOT / command)]
    named = command.split() if command in MODULE else named
    started = [sys.executable, "-X", "importtime", *named, "--help"]
    done = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("usage: ")
    loaded = {name.split(".")[0] for name in _IMPORTED.findall(done.stderr)}
    assert "sys" in loaded or "os" in loaded  # the list was read
    assert not loaded & SLOW


def test_bars_are_for_terminals_only():
    bars = [
        (path.name, node)
        for path in (*ROOT.glob("scripts/**/*.py"), *ROOT.glob("lavis/datasets/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("tqdm")
    ]
    assert {"corpus.py", "browse.py"} <= {name for name, _ in bars}
    for name, bar in bars:  # None: tqdm looks whether its stream is a terminal
        assert "disable=None" in ast.unparse(bar), name
