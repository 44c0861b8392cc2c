"""Reading and writing weights: refusal of code, the download cache, atomic files."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lavis.common.checkpoint import (
    LoadReport,
    cached_path,
    download,
    read_state_dict,
    save_safetensors,
    shorten,
)
from lavis.common.errors import DataError


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("a-file-that-is-never-made"),))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


def test_pickle_with_code_is_refused(tmp_path):
    path = tmp_path / "bad.pth"
    torch.save({"model": {"w": torch.ones(1)}, "extra": RunsCode()}, path)
    with pytest.raises(DataError, match="refused, the file holds objects other than tensors"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(DataError, match=r"bad\.pth"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors"])
def test_torn_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not the whole file")
    with pytest.raises(DataError, match=f"{re.escape(name)}: not a readable"):
        read_state_dict(tmp_path / name)


def test_file_without_tensors_and_missing_file(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(DataError, match="no tensors found"):
        read_state_dict(tmp_path / "empty.pth")
    with pytest.raises(DataError, match=r"no such checkpoint: .*absent\.pth"):
        read_state_dict(tmp_path / "absent.pth")


def test_legacy_format_is_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": {"w": torch.ones(2)}}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(path)["w"], torch.ones(2))


def test_downloads_of_equal_names_do_not_collide(tmp_path, cache):
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        torch.save({"w": torch.full((1,), ord(run))}, tmp_path / run / "checkpoint_best.pth")
    urls = [(tmp_path / run / "checkpoint_best.pth").as_uri() for run in ("a", "b")]
    assert [int(read_state_dict(url)["w"]) for url in urls] == [ord("a"), ord("b")]
    assert len({cached_path(url) for url in urls}) == 2
    (tmp_path / "a" / "checkpoint_best.pth").unlink()
    assert int(read_state_dict(urls[0])["w"]) == ord("a")  # from the cache
    assert not list(cache.glob("*.part*"))


def test_offline_message_says_what_to_place_where(cache):
    url = "http://127.0.0.1:9/critic/checkpoint_best.pth"
    target = cached_path(url)
    assert re.fullmatch(r"[0-9a-f]{64}-checkpoint_best\.pth", target.name)
    message = f"cannot download {re.escape(url)} .*place it at {re.escape(str(target))}"
    with pytest.raises(DataError, match=message):
        download(url)
    torch.save({"w": torch.ones(1)}, target)
    assert torch.equal(read_state_dict(url)["w"], torch.ones(1))


def test_writing_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "model.safetensors"
    shared = torch.arange(4.0)
    save_safetensors(path, {"a": shared, "b": shared, "c": shared[1:3]}, {"epoch": "1"})
    assert {k: v.tolist() for k, v in load_file(path).items()} == {
        "a": [0, 1, 2, 3],
        "b": [0, 1, 2, 3],
        "c": [1, 2],
    }

    def torn(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("lavis.common.checkpoint.save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        save_safetensors(path, {"a": torch.ones(1)})
    assert load_file(path)["a"].tolist() == [0, 1, 2, 3]
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_report_folds_numbers(caplog):
    names = [f"blocks.{i}.norm.weight" for i in range(3)] + ["head.bias"]
    assert shorten(names) == "blocks.*.norm.weight (3), head.bias"
    assert shorten((f"part{i}" for i in range(5)), most=2) == "part0, part1, and 3 more"
    LoadReport(source="x.pth", unexpected=tuple(names)).log()
    assert "no place for blocks.*.norm.weight (3), head.bias" in caplog.text
