"""Files that are not what their names say are called what they are."""

from __future__ import annotations

import zipfile

import pytest
import torch

from lavis.common.checkpoint import plain_names, read_state_dict, save_safetensors
from lavis.common.config.loading import read_yaml
from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.common.storage.foreign import foreign_kind, foreign_kind_of
from lavis.datasets.files.formats import open_file
from lavis.datasets.files.images import ImageRoot, decode_image
from lavis.datasets.files.items import read_items

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Virus scan warning</title></head></html>"
CONTENTS = {
    "a Git LFS pointer": POINTER,
    "an HTML page": PAGE,
    "an XML answer": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "a git-annex pointer": b"/annex/objects/SHA256E-s1--ab.pth\n",
    "empty": b"",
}


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_weights_that_are_none(tmp_path, kind, ending):
    path = tmp_path / f"critic.{ending}"
    path.write_bytes(CONTENTS[kind])
    with pytest.raises(DataError, match=rf"critic\.{ending} is {kind}"):
        read_state_dict(path)


def test_pages_of_any_spelling_and_what_is_none():
    for text in ("<HTML lang=en>", "\ufeff<!-- x -->\n<!doctype HTML>", "<head>"):
        assert "HTML" in (foreign_kind(text.encode()) or "")
    for text in ("<b>", "version: 1", '{"html": "<html>"}', "PK\x03\x04", "a,b\n1,2"):
        assert foreign_kind(text.encode()) is None
    assert foreign_kind_of("not there") is None


@pytest.mark.parametrize("kind", ["a Git LFS pointer", "an HTML page"])
def test_other_files(tmp_path, kind):
    def save(name):
        (tmp_path / name).write_bytes(CONTENTS[kind])
        return tmp_path / name

    with pytest.raises(ConfigError, match=f"run.yaml is {kind}"):
        read_yaml(save("run.yaml"))
    for name in ("a.jsonl", "a.parquet", "a.jsonl.gz", "a.tar"):
        with pytest.raises(DataError, match=f"{name} is {kind}"):
            open_file(str(save(name)))
    with pytest.raises(DataError, match=f"val.json is {kind}"):
        list(read_items(save("val.json")))
    save("a.png")
    with pytest.raises(RecordError, match=f"broken image: a.png: it is {kind}"):
        decode_image(ImageRoot(str(tmp_path)).find("a.png"), 10**6)


def test_json_under_the_name_of_weights(tmp_path):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_text('{"error": "Invalid credentials"}')
        with pytest.raises(DataError, match=f"{name} is JSON text, not weights"):
            read_state_dict(tmp_path / name)


WEIGHTS = {"a.weight": torch.arange(4000.0).view(400, 10), "b": torch.ones(3)}


@pytest.mark.parametrize("form", ["zip.pth", "old.pth", "x.safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_half_a_file_is_one_sentence(tmp_path, form, share):
    path = tmp_path / form
    if form.endswith(".pth"):
        torch.save({"model": WEIGHTS}, path, _use_new_zipfile_serialization=form == "zip.pth")
    else:
        save_safetensors(path, WEIGHTS)
    whole = path.read_bytes()
    assert set(read_state_dict(path)) == set(WEIGHTS)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=f"{form}: not a readable .*: it is cut short") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    if form == "x.safetensors":
        assert f"{len(path.read_bytes())} of {len(whole)} bytes" in str(caught.value)


def test_a_zip_of_something_else_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(DataError, match=r"a\.pth: not a readable checkpoint") as caught:
        read_state_dict(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "module.tower.w",
        "_orig_mod.tower.w",
        "_orig_mod.module.tower.w",
        "module._orig_mod.tower.w",
        "module.module.tower._orig_mod.w",
        "_fsdp_wrapped_module.tower._checkpoint_wrapped_module.w",
    ],
)
def test_names_of_wrapped_models(tmp_path, name):
    torch.save({"model_state_dict": {name: torch.ones(1)}}, tmp_path / "a.pth")
    assert list(read_state_dict(tmp_path / "a.pth")) == ["tower.w"]


def test_a_module_of_the_model_itself_keeps_its_name():
    state = {"module.w": torch.ones(1), "head.w": torch.ones(1)}
    assert list(plain_names(state, "x")) == ["module.w", "head.w"]
    with pytest.raises(DataError, match="x: holds 'w' twice"):
        plain_names({"w": torch.ones(1), "_orig_mod.w": torch.ones(1)}, "x")
