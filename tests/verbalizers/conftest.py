"""Fixtures of verbalizations."""

import sys
from pathlib import Path

import pytest
from verbalizing import make_image, run_file, tiny, world  # noqa: F401 - fixtures

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def image():
    """`image(seed, size)` of coarse noise."""
    return make_image
