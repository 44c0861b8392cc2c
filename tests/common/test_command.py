"""How commands end: a line for what a user can mend, a traceback for our bugs, a status."""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavis.common.command import command, explain
from lavis.common.dist import HungRankError
from lavis.common.errors import ConfigError, DataError, NothingDoneError, RecordError
from lavis.runners.guard import DivergedError

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
RUN_FILE = """
model:
  arch: blip2_critic
  model_type: pretrain
  load_pretrained: false
  image_size: 28
  num_query_token: 4
  max_txt_len: 32
  vit: {{embed_dim: 32, depth: 2, num_heads: 4}}
  qformer:
    {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64}}
datasets:
  unified_vqa_binary:
    build_info:
      annotations:
        train: {{storage: [records.jsonl]}}
        val: {{storage: [records.jsonl]}}
        test: {{storage: [records.jsonl]}}
      images: {{storage: {folder}, ann_root: {folder}}}
    vis_processor:
      train: {{name: blip_image_eval, image_size: 28}}
      eval: {{name: blip_image_eval, image_size: 28}}
run:
  task: multimodal_classification
  lr_sched: linear_warmup_cosine_step_lr
  init_lr: 3e-3
  max_epoch: 1
  batch_size_train: 8
  batch_size_eval: 1
  device: cpu
  output_dir: {folder}/out
  test_splits: [test]
"""


class Odd(Exception):
    """One of our own bugs."""


TOLD = [
    (ConfigError("run.a: wrong\nrun.b: wrong"), 2, "run.a: wrong\nrun.b: wrong"),
    (DataError("a.jsonl: no such file"), 2, "a.jsonl: no such file"),
    (RecordError("empty text"), 2, "empty text"),
    (NothingDoneError("test: none of 3"), 1, "test: none of 3"),
    (HungRankError("rank 1 has\nended"), 1, "rank 1 has ended"),
    (DivergedError("step 3: loss is nan"), 1, "step 3: loss is nan"),
    (OSError(errno.ENOSPC, "No space left", "out/a"), 1, "out/a: the disk is full; free some sp"),
    (OSError(errno.EDQUOT, "quota", "out/a"), 1, "out/a: the disk quota is used up"),
    (PermissionError(errno.EACCES, "x", "out"), 1, "out: permission denied; change its rights"),
    (OSError(errno.EROFS, "x", "out"), 1, "out: the file system is read-only"),
    (FileExistsError(errno.EEXIST, "x", "out"), 1, "out: is a file, where a folder is needed"),
    (NotADirectoryError(errno.ENOTDIR, "x", "a/b"), 1, "a/b: is a file, where a folder"),
    (IsADirectoryError(errno.EISDIR, "x", "a"), 1, "a: is a folder, where a file is needed"),
    (FileNotFoundError(errno.ENOENT, "x", "a"), 1, "a: no such file or folder"),
    (FileNotFoundError(errno.ENOENT, "x", b"\xff"), 1, "\udcff: no such file or folder"),
    (OSError(errno.EMFILE, "x"), 1, "too many open files; raise the limit"),
    (OSError(errno.EIO, "Input/output error", "a"), 1, "a: Input/output error"),
    (OSError("We couldn't connect\n to the hub"), 1, "We couldn't connect to the hub"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "Broken pipe"),  # of a network connection
    (MemoryError(), 1, "out of memory; lower run.batch_size_train or run.batch_size_eval"),
    (OSError(errno.ENOMEM, "x"), 1, "out of memory; lower"),
    (torch.OutOfMemoryError("CUDA out of memory. GPU 0 has"), 1, "out of memory on GPU 0; lower"),
    (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 12"), 1, "out of memory"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 1, "out of memory"),
    (ModuleNotFoundError("No module named 'wandb'", name="wandb"), 1, "install the package wandb"),
    (torch.distributed.DistNetworkError("no port"), 1, "the processes cannot talk to each other"),
]


@pytest.mark.parametrize(("error", "status", "text"), TOLD, ids=lambda v: str(v)[:30])
def test_what_a_user_can_mend_has_a_status_and_a_line(error, status, text):
    found = explain(error)
    assert found is not None and found[0] == status
    assert text in found[1] and "Traceback" not in found[1]
    assert "\n" not in found[1] or isinstance(error, ConfigError)


@pytest.mark.parametrize(
    "error",
    [Odd("x"), ValueError("x"), KeyError("x"), RuntimeError("x"), AssertionError("x"),
     ImportError("cannot import name 'x' from 'lavis.y'", name="lavis.y"), RecursionError()],
    ids=repr,
)  # fmt: skip
def test_our_own_bugs_keep_their_traceback(error):
    assert explain(error) is None

    @command
    def main():
        raise error

    with pytest.raises(type(error)):
        main()


class Broken(torch.utils.data.Dataset):
    """Fails in a loading process as told."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise KeyError("a cause, which is not told")
        except KeyError:
            raise self.error  # noqa: B904


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("a.tar: is cut"), "a.tar: is cut"),
        (ConfigError("a: wrong\nb: wrong"), "a: wrong\nb: wrong"),
        (FileNotFoundError(errno.ENOENT, "x", "gone.jpg"), "gone.jpg"),
    ],
)
def test_errors_of_loading_processes_lose_what_torch_wraps_them_in(error, text):
    loader = torch.utils.data.DataLoader(Broken(error), num_workers=1)
    with pytest.raises(type(error)) as caught:
        next(iter(loader))
    found = explain(caught.value)
    assert found is not None and text in found[1]
    assert "Traceback" not in found[1] and "cause" not in found[1]


def test_run_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(NothingDoneError("none")))
    assert isinstance(error, NothingDoneError) and str(error) == "none"


def test_the_status_of_a_command_is_what_it_returns(capsys):
    assert command(lambda: None)() == 0 and command(lambda: 3)() == 3
    assert capsys.readouterr().err == ""


def interrupted() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_is_a_line_and_130_or_a_traceback_if_asked(capsys, monkeypatch):
    assert command(interrupted)() == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setenv("RANK", "1")
    assert command(interrupted)() == 130 and capsys.readouterr().err == ""
    monkeypatch.setenv("LAVIS_TRACEBACK", "1")
    with pytest.raises(KeyboardInterrupt):
        command(interrupted)()


def wrapped_functions(tree):
    """Return the functions of a module that `@command` wraps."""
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "command" for d in node.decorator_list)
    }


def has_boundary(code: str) -> bool:
    """Return whether what a file runs as a program is a function that `@command` wraps."""
    tree = ast.parse(code)
    wrapped = wrapped_functions(tree) | {"run_front_end", "run_converter"}  # where they are
    for node in tree.body:  # a script that runs a module of the package
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lavis."):
            module = ROOT / f"{node.module.replace('.', '/')}.py"
            if any(alias.name == "main" for alias in node.names):
                wrapped |= wrapped_functions(ast.parse(module.read_text(encoding="utf-8")))
    last = tree.body[-1]
    exits = isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    if not exits:
        return "__main__" not in code
    (call,) = [node for node in ast.walk(last) if isinstance(node, ast.Call)][:1]
    inner = call.args[0] if call.args else None
    name = inner.func.id if isinstance(inner, ast.Call) else None  # type: ignore[attr-defined]
    return ast.unparse(call.func) == "sys.exit" and name in wrapped


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("projects/**/*.py"), *ROOT.glob("*.py")]),
    ids=lambda path: path.stem,
)
def test_every_program_goes_through_the_boundary(path):
    assert has_boundary(path.read_text(encoding="utf-8")) or path.name == "setup.py"


def test_what_wraps_them_is_the_boundary():
    from lavis.common.cli import run_front_end
    from lavis.datasets.unified.convert import run_converter

    assert run_front_end.is_command and run_converter.is_command
    assert not has_boundary("def main(): ...\nif __name__ == '__main__':\n    sys.exit(main())\n")


@pytest.fixture
def run_file(tmp_path):
    """A run file whose records' images are missing, as many as make a run of some seconds."""
    lines = [
        json.dumps(
            {"image": f"{n}.png", "region": [0], "region_all": [0],
             "references": [{"name": "0", "boxes": [[2, 2, 9, 9]], "obj_guess": "box"}],
             "question": ["What", "is", [0], "?"], "answer": ["box"], "rationale": [[0], "has"]}
        )
        for n in range(8)
    ]  # fmt: skip
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE.format(folder=tmp_path))
    return path


def start(script: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Return a command of this checkout, started."""
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        env={**ENVIRONMENT, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(script: str, *arguments: str, **more: str) -> tuple[int, list[str], str]:
    """Return a command's exit status, its lines of errors, and all of stderr."""
    process = start(script, *arguments, **more)
    text = process.communicate(timeout=120)[1]
    return process.returncode, [x for x in text.splitlines() if x.startswith("error")], text


def test_a_run_without_a_single_score_does_not_succeed(run_file):
    status, errors, text = outcome("evaluate.py", "--cfg-path", str(run_file))
    assert (status, errors) == (
        1,
        ["error: test_epochbest: none of 8 records could be scored: "
         "missing image (8); see rejects.jsonl"],
    ), text  # fmt: skip
    rejects = (run_file.parent / "out/rejects.jsonl").read_text().splitlines()
    assert len(rejects) == 8 and "Traceback" not in text
    Image.new("RGB", (28, 28)).save(run_file.parent / "0.png")
    options = ["--options", f"run.output_dir={run_file.parent / 'again'}"]
    assert outcome("evaluate.py", "--cfg-path", str(run_file), *options)[0] == 0


KILLED_WHILE_WRITING = """
import os, runpy, signal, sys
from lavis.tasks.filtering import results as filtering

def write(self, rows, table):
    for file in self._kept.values():
        file.write(b"x" * 1_000_000)
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

filtering._Corpora.write = write
sys.argv = ["evaluate.py", *sys.argv[1:]]
runpy.run_path("evaluate.py", run_name="__main__")
"""


def test_what_a_kill_in_the_final_writing_leaves_is_removed_by_the_rerun(run_file):
    Image.new("RGB", (28, 28)).save(run_file.parent / "0.png")
    arguments = ["--cfg-path", str(run_file), "--options", "run.keep_above=[0.0,0.5]"]
    assert outcome("-c", KILLED_WHILE_WRITING, *arguments)[0] == -signal.SIGKILL
    left = list((run_file.parent / "out/kept").iterdir())
    assert left and all(path.name.startswith(".") for path in left)
    status, _, text = outcome("evaluate.py", *arguments)
    assert status == 0 and "unfinished file(s)" in text, text
    assert not [path for path in run_file.parent.rglob("*") if path.name.endswith(".part")]
    kept = sorted(path.name for path in (run_file.parent / "out/kept").iterdir())
    assert kept == [f"test_epochbest_filtered_threshold_{t}.jsonl" for t in (0.0, 0.5)]


def test_a_full_disk_is_one_line_that_names_the_file(run_file):
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "sys.argv = ['evaluate.py', *sys.argv[1:]]\n"
        "runpy.run_path('evaluate.py', run_name='__main__')\n"
    )
    status, errors, text = outcome("-c", code, "--cfg-path", str(run_file))
    assert status == 1 and len(errors) == 1, text
    assert "larger than files may be here" in errors[0] and str(run_file.parent) in errors[0]
    assert "Traceback" not in text
    assert not [path for path in run_file.parent.rglob("*") if path.name.endswith(".part")]


def test_ctrl_c_in_a_run_is_one_line_and_130(run_file):
    process = start("evaluate.py", "--cfg-path", str(run_file), "--options", "run.num_workers=1")
    assert process.stderr is not None
    for line in process.stderr:
        if "files in" in line:  # the runner is built, work begins
            break
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 130, text
    assert text.splitlines()[-1] == "interrupted" and "Traceback" not in text
    assert time.monotonic() - begin < 30
    assert not [path for path in run_file.parent.rglob("*.part")]


def test_several_processes_tell_a_failure_once(run_file):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "evaluate.py"]
    status, errors, text = outcome(launch[0], *launch[1:], "--cfg-path", str(run_file))
    assert status == 1 and errors == [
        "error: test_epochbest: none of 8 records could be scored: "
        "missing image (8); see rejects.jsonl"
    ], text
    status, errors, text = outcome(
        launch[0], *launch[1:], "--cfg-path", str(run_file), "--options", "run.batch_size_evl=4"
    )
    assert status == 1 and len(errors) == 1 and "did you mean 'batch_size_eval'" in errors[0], text


def test_a_failure_of_another_rank_alone_is_told_by_it(tmp_path):
    code = (
        "import sys; from lavis.common import dist; from lavis.common.command import command\n"
        "@command\n"
        "def main():\n"
        "    import atexit; world = dist.start('cpu', 1.0); atexit.register(world.leave)\n"
        "    if world.rank == 1: open('/nowhere/file')\n"
        "    world.barrier('meet')\n"
        "sys.exit(main())\n"
    )
    (tmp_path / "job.py").write_text(code)
    status, errors, text = outcome(
        "-m", *("torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        str(tmp_path / "job.py"),
    )  # fmt: skip
    assert status == 1 and "error on rank 1: /nowhere/file: no such file or folder" in errors, text
    assert len(errors) == 2 and "error: meet: rank 1 has ended before" in "\n".join(errors)
    assert "FileNotFoundError" not in text


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_an_output_folder_that_cannot_be_one_is_refused_before_torch_loads(run_file, kind):
    taken = run_file.parent / "taken"
    taken.write_text("mine")
    place = taken if kind == "file" else taken / "out"
    status, errors, text = outcome(
        "evaluate.py", "--cfg-path", str(run_file), "--options", f"run.output_dir={place}"
    )
    assert status == 2 and "Traceback" not in text
    assert len(errors) == 1 and "run.output_dir" in errors[0] and "is a file" in errors[0]
    assert taken.read_text() == "mine"


def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path):
    code = (
        "import sys; from lavis.common.command import command\n"
        "@command\n"
        "def main():\n"
        "    for n in range(100000): print(n)\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -c "$1" | head -1', sys.executable, code],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


COMMANDS = {
    "train.py": ["--cfg-path", "{missing}"],
    "evaluate.py": ["--cfg-path", "{missing}"],
    "scripts/verbalize.py": ["--cfg-path", "{missing}"],
    "scripts/generate_qar.py": ["--cfg-path", "{missing}"],
    "scripts/export_corpus.py": ["{missing}", "--output", "{file}/out"],
    "scripts/make_negatives.py": ["{records}", "--out", "{file}/out"],
    "scripts/validate_lck.py": ["{records}", "--image-root", "{folder}", "--rejects", "{file}/r"],
    "scripts/convert_aokvqa.py": ["{missing}", "--output", "{file}/out"],
    "scripts/results_table.py": ["x={missing}"],
    "scripts/browse.py": ["{missing}", "--image-root", "{folder}"],
}


@pytest.mark.parametrize("script", COMMANDS)
def test_what_cannot_be_read_or_written_is_one_line(run_file, script):
    folder = run_file.parent
    places = {
        "missing": folder / "none.yaml",
        "file": folder / "records.jsonl",
        "records": folder / "records.jsonl",
        "folder": folder,
    }
    arguments = [text.format(**places) for text in COMMANDS[script]]
    status, errors, text = outcome(script, *arguments)
    assert status in (1, 2) and "Traceback" not in text, text
    assert len(errors) == 1 or "usage:" in text, text
