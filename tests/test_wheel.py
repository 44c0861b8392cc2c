"""A wheel holds all that the package reads, and works unpacked in another folder."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")

USE = """
import importlib, pkgutil, sys
from pathlib import Path

import lavis
folder = Path(sys.argv[1])
assert Path(lavis.__file__).parent == folder / "lavis", lavis.__file__
for found in pkgutil.walk_packages(lavis.__path__, "lavis."):
    if found.name != "lavis.integrations.harness":  # needs lm_eval
        importlib.import_module(found.name)

from omegaconf import OmegaConf
for path in sorted(folder.rglob("*.yaml")):
    if "lm_eval" not in path.parts:  # written in the harness's own dialect
        assert OmegaConf.load(path), path

from lavis.llm.prompts import Prompts
from lavis.models.blip2.qformer import VOCABULARY
from lavis.ui import markup
from lavis.verbalizers.base import VOCABULARIES
Prompts()
assert len(VOCABULARY.read_text(encoding="utf-8").splitlines()) == 30522
assert len((VOCABULARIES / "objects.txt").read_text().split()) > 100
assert markup.style("label") and markup.script("label")
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Build a wheel from a copy of the sources; returns the folder it is unpacked in."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "unpacked"))
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "lavis", source / "lavis", ignore=IGNORED)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--disable-pip-version-check", "-w", str(source), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = source.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_every_file_of_the_package_is_in_it_and_none_beside_it(unpacked):
    wanted = {
        path.relative_to(ROOT): path.read_bytes()
        for path in (ROOT / "lavis").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    (info,) = unpacked.glob("lavis_commonsense-*.dist-info")
    found = {
        path.relative_to(unpacked): path.read_bytes()
        for path in unpacked.rglob("*")
        if path.is_file() and info not in path.parents
    }
    assert sorted(found) == sorted(wanted)
    assert found == wanted


def test_it_works_in_another_folder(unpacked, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(unpacked)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--nproc_per_node=1"]])
def test_its_module_runs_a_shipped_run_file_without_a_checkout(unpacked, tmp_path, launcher):
    run = "lavis/projects/vlmig/eval/imagenetvc.yaml"  # not there: the package's own is read
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "lavis", "evaluate", "--cfg-path", run, "--print-config"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "task: visual_questions" in done.stdout


def test_its_command_is_a_function_of_the_package(unpacked):
    parser = configparser.ConfigParser()
    (listed,) = unpacked.glob("*.dist-info/entry_points.txt")
    parser.read(listed)
    assert dict(parser["console_scripts"]) == {
        "lavis-lm-eval": "lavis.integrations.lm_eval_command:main"
    }
    code = "from lavis.integrations.lm_eval_command import main; assert callable(main)"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
