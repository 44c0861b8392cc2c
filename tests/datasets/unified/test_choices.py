"""The flags of a converter are its fields."""

import argparse
from pathlib import Path

import pytest

from lavis.datasets.unified.choices import Visual7wConverter
from lavis.datasets.unified.gar_bench import GarBenchConverter
from lavis.datasets.unified.sherlock import SherlockConverter
from lavis.datasets.unified.visualcomet import VisualCometConverter


def parsed(cls, *argv):
    parser = argparse.ArgumentParser()
    cls.add_arguments(parser)
    return cls(**vars(parser.parse_args(argv)))


def test_flags_become_fields_with_their_defaults():
    plain = parsed(Visual7wConverter, "a.json")
    assert plain == Visual7wConverter(annotations=Path("a.json"))
    assert (plain.image_prefix, plain.split, plain.shuffle) == ("visual7w", "test", None)
    assert parsed(Visual7wConverter, "a.json", "--shuffle", "3", "--split", "val").shuffle == 3
    comet = parsed(VisualCometConverter, "a.json", "--image-dir", "x", "--no-place")
    assert (comet.with_place, comet.count, comet.image_dir) == (False, 50, Path("x"))


@pytest.mark.parametrize(
    ("cls", "argv"), [(GarBenchConverter, ["a"]), (SherlockConverter, ["a", "b"])]
)
def test_images_are_looked_for_where_the_environment_says(cls, argv, monkeypatch):
    monkeypatch.delenv("UNIFIED_IMAGE_DIR", raising=False)
    assert parsed(cls, *argv).image_root is None
    monkeypatch.setenv("UNIFIED_IMAGE_DIR", "")
    assert parsed(cls, *argv).image_root is None
    monkeypatch.setenv("UNIFIED_IMAGE_DIR", "images")
    assert parsed(cls, *argv).image_root == Path("images")
    assert parsed(cls, *argv, "--image-root", "other").image_root == Path("other")
