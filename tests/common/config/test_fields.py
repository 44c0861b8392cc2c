"""Types of fields: folders that can be made, paths that are there, fractions."""

import os

import pytest
from pydantic import TypeAdapter, ValidationError

from lavis.common.config.fields import (
    CONFIG_ROOT,
    ExistingPath,
    Fraction,
    FractionBelowOne,
    OutputFolder,
    PositiveFraction,
)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Fraction, [0, 0.5, 1], [-0.1, 1.1]),
        (PositiveFraction, [0.1, 1], [0, 1.1]),
        (FractionBelowOne, [0, 0.9], [1, -0.1]),
    ],
)
def test_fractions_have_their_ends(kind, good, bad):
    adapter = TypeAdapter(kind)
    assert [adapter.validate_python(value) for value in good] == good
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_an_output_folder_may_have_to_be_made_but_can_be(tmp_path):
    adapter = TypeAdapter(OutputFolder)
    new = str(tmp_path / "a" / "b")
    assert adapter.validate_python(new) == new and not os.path.exists(new)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, where a folder is needed"):
        adapter.validate_python(str(tmp_path / "file" / "out"))
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="is a link to nothing"):
        adapter.validate_python(str(tmp_path / "link"))


def test_an_existing_path_is_there(tmp_path):
    adapter = TypeAdapter(ExistingPath)
    assert adapter.validate_python(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder"):
        adapter.validate_python(str(tmp_path / "gone"))
    assert (CONFIG_ROOT / "registry.yaml").is_file()
