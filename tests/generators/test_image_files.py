"""Ready images: inside their folder, whole, and in lines of JSON that are told apart."""

import io

import pytest
from PIL import Image

from lavis.common.errors import DataError
from lavis.generators.image_files import decode, existing_folder, inside, read_json_lines


def test_names_must_stay_inside_the_folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    (root / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    assert inside(existing_folder(str(root), "root"), "a.png") == root / "a.png"
    with pytest.raises(DataError, match="leads out of"):
        inside(root, "../b.png")
    with pytest.raises(DataError, match="no such image"):
        inside(root, "c.png")
    with pytest.raises(DataError, match="root: no such folder"):
        existing_folder(str(tmp_path / "none"), "root")


def test_bytes_become_rgb_or_are_refused_by_name():
    buffer = io.BytesIO()
    Image.new("L", (2, 1), 7).save(buffer, "PNG")
    image = decode(buffer.getvalue(), "a.png")
    assert (image.mode, image.size, image.getpixel((1, 0))) == ("RGB", (2, 1), (7, 7, 7))
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        decode(buffer.getvalue()[:20], "a.png")


def test_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    assert list(read_json_lines(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: a JSON object was expected"):
        list(read_json_lines(path))
    path.write_text('{"a": 1}\n{')
    with pytest.raises(DataError, match="line 2: not JSON"):
        list(read_json_lines(path))
