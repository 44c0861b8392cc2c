"""Files appear whole or not at all, and nothing is left of those that do not."""

from __future__ import annotations

import ast
import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lavis.common.checkpoint import save_safetensors, save_torch
from lavis.common.storage import atomic as storage
from lavis.common.storage import leftovers
from lavis.common.storage.atomic import (
    AtomicFile,
    AtomicFolder,
    AtomicPath,
    write_text,
)
from lavis.common.storage.leftovers import remove_leftovers

ROOT = Path(__file__).resolve().parents[3]
HELD = """
import sys, time
from lavis.common.storage.atomic import {cls}
with {cls}(sys.argv[1]) as opened:
    {fill}
    print("writing", flush=True)
    time.sleep(60)
"""
FILLS = {
    "AtomicFile": "opened.write(b'x' * 3_000_000)",
    "AtomicPath": "opened.write_bytes(b'x' * 3_000_000)",
    "AtomicFolder": "(opened / 'a').write_bytes(b'x' * 3_000_000)",
}


def start_writer(cls: str, target: Path) -> subprocess.Popen[str]:
    """Return a process that has begun to write and waits."""
    code = HELD.format(cls=cls, fill=FILLS[cls])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("cls", FILLS)
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, caplog, cls):
    leftovers.sweep_once.cache_clear()  # the folder of another green test may have had this name
    target = tmp_path / "corpus.jsonl"
    process = start_writer(cls, target)
    try:
        assert remove_leftovers(tmp_path) == 0, "its writer is alive"
        process.kill()
        # it has ended and was not waited for: a zombie, which writes no more
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (left,) = tmp_path.iterdir()
        assert left != target
        write_text(tmp_path / "other.txt", "next job")
        assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
        assert f"{tmp_path}: removed 1 unfinished file(s), 3.0 MB" in caplog.text
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("cls", FILLS)
def test_ctrl_c_leaves_nothing(tmp_path, cls):
    process = start_writer(cls, tmp_path / "corpus.jsonl")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_nobody_closed_is_removed_at_the_end_of_the_process(tmp_path):
    code = "import sys; from lavis.common.storage.atomic import AtomicFile as A\n"
    code += "file = A(sys.argv[1]); file.__enter__().write(b'1'); raise ValueError('a bug')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], cwd=ROOT, capture_output=True
    )
    assert b"a bug" in done.stderr and list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files():
    """Files may hold 64 KiB: the disk is full, as far as a writer can tell."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def save_file(path: Path, size: int) -> None:
    with AtomicFile(path) as file:
        file.write(b"x" * size)


def save_path(path: Path, size: int) -> None:
    with AtomicPath(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, a=np.zeros(size, dtype=np.uint8))


def save_tensors(path: Path, size: int) -> None:
    save_safetensors(path, {"a": torch.zeros(size, dtype=torch.uint8)})


def save_pickle(path: Path, size: int) -> None:
    save_torch(path, {"a": torch.zeros(size, dtype=torch.uint8)})


def save_folder(path: Path, size: int) -> None:
    with AtomicFolder(path) as folder:
        save_file(folder / "inner", size)


SAVERS = [save_file, save_path, save_tensors, save_pickle, save_folder]


@pytest.mark.parametrize("size", [100_000, 1_000_000], ids=["at the last flush", "while writing"])
@pytest.mark.parametrize("save", SAVERS)
def test_a_full_disk_leaves_the_old_content_and_names_the_file(tmp_path, small_files, save, size):
    target = tmp_path / "target"
    save(target, 10)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    with pytest.raises(OSError, match="target") as caught:
        save(target, size)
    assert caught.value.errno == errno.EFBIG
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    assert [path.read_bytes() for path in files] == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("save", SAVERS)
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch, save):
    def refuse(path, *args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", lambda path, *a, **k: None if k else refuse(path))
    with pytest.raises(PermissionError) as caught:
        save(tmp_path / "target", 10)
    assert caught.value.filename == str(tmp_path / "target")


@pytest.mark.parametrize("umask", [0o022, 0o027])
@pytest.mark.parametrize("save", SAVERS[:4])
def test_rights_are_those_of_any_new_file_or_of_the_one_replaced(tmp_path, save, umask):
    target = tmp_path / "target"
    before = os.umask(umask)
    try:
        save(target, 10)
        assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
        target.chmod(0o660)
        save(target, 20)
        assert stat.S_IMODE(target.stat().st_mode) == 0o660
    finally:
        os.umask(before)


@pytest.mark.parametrize("save", SAVERS[:4])
def test_a_link_stays_and_its_file_is_replaced(tmp_path, save):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real/file")  # not there yet
    for size in (10, 20_000):
        save(link, size)
        assert link.is_symlink() and (tmp_path / "real/file").stat().st_size >= size
        assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]


def test_what_is_no_regular_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        write_text(tmp_path / "folder", "text")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "a\nb", "名" * 85])
def test_names_of_any_kind_and_length(tmp_path, name):
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(KeyError), AtomicFile(tmp_path / name):
        (left,) = [path.name for path in tmp_path.iterdir() if path.name != name]
        assert leftovers._PART.fullmatch(left)
        raise KeyError


def test_the_name_may_depend_on_the_content(tmp_path):
    writer = AtomicFile(tmp_path / "later")
    with writer as file:
        file.write(b"content")
        writer.path = tmp_path / "hash"
    assert [path.name for path in tmp_path.iterdir()] == ["hash"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    first, second = AtomicFile(tmp_path / "a"), AtomicFile(tmp_path / "a")
    with first as one, second as other:
        one.write(b"one")
        other.write(b"other, longer")
    assert (tmp_path / "a").read_bytes() == b"one", "the last to end"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_forked_copy_removes_nothing(tmp_path):
    with AtomicFile(tmp_path / "a") as file:
        child = os.fork()
        if child == 0:
            del file
            leftovers.remove(next(str(path) for path in tmp_path.iterdir()), os.getppid())
            os._exit(0)
        os.waitpid(child, 0)
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


MOVERS = {"replace", "rename", "renames", "move", "mkstemp", "mkdtemp", "NamedTemporaryFile"}
WRITERS = {"write_text", "write_bytes"}
MODULES = {"os", "shutil", "tempfile"}
# They write into temporary folders of their own, or into the kernel's files.
MEASURING = ("scripts/bench", "scripts/check_golden", "projects/checks")


def unsafe_calls(code: str) -> list[str]:
    """Return `line: call` where a file is moved or written other than by `storage`."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = node.func.value, node.func.attr
        of_module = isinstance(owner, ast.Name) and owner.id in MODULES
        of_path = name in ("replace", "rename") and len(node.args) == 1 and not node.keywords
        if (name in MOVERS and (of_module or of_path)) or name in WRITERS:
            found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


def test_only_storage_moves_files_into_place():
    paths = [
        *ROOT.glob("lavis/**/*.py"),
        *ROOT.glob("scripts/*.py"),
        *ROOT.glob("projects/**/*.py"),
        *ROOT.glob("*.py"),
    ]
    assert len(paths) > 200
    found = {
        str(path.relative_to(ROOT)): calls
        for path in paths
        if path != Path(storage.__file__)
        and not path.relative_to(ROOT).as_posix().startswith(MEASURING)
        and (calls := unsafe_calls(path.read_text(encoding="utf-8")))
    }
    assert found == {}, "use lavis.common.storage.atomic"
    assert unsafe_calls(
        "os.replace(a, b)\np.replace(q)\np.write_text('')\nt.replace('a', 'b')"
    ) == [
        "1: os.replace",
        "2: p.replace",
        "3: p.write_text",
    ]
