"""Files that are made once."""

import pytest

from lavis.datasets.files.built import built_once, cache_folder, digest_of, file_identity


def test_a_file_is_made_once_and_a_failed_build_leaves_none(tmp_path):
    target, calls = tmp_path / "x.bin", []

    def build(path):
        calls.append(path)
        path.write_bytes(b"whole")
        if len(calls) == 1:
            raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        built_once(target, build)
    assert not target.exists()
    assert built_once(target, build).read_bytes() == b"whole"
    built_once(target, build)
    assert len(calls) == 2


def test_identity_is_ending_and_content_wherever_the_file_lies(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        (tmp_path / name).write_bytes(b"same")
    first, second = (file_identity(tmp_path / name) for name in ("a.jsonl.gz", "b.jsonl.gz"))
    assert first == second and first[0] == ".jsonl.gz"
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert cache_folder(str(tmp_path / "made" / "deep")).is_dir()
