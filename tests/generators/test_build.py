"""From a run's section to a generator and its store."""

import io

import pytest
from PIL import Image

from lavis.common import registry
from lavis.common.errors import ConfigError
from lavis.generators.base import ImageRequest, ImageScorer
from lavis.generators.build import build_generator, build_scorer, build_store
from lavis.generators.config import ImagesConfig


@pytest.fixture
def folder(tmp_path):
    """A folder with one image of 20 x 10 pixels for the prompt `a cat`."""
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGB", (20, 10), (10, 200, 30)).save(root / "a_cat.png")
    return root


@pytest.mark.parametrize(("form", "size"), [("png", None), ("webp", 5)])
def test_a_store_reduces_and_encodes_images_as_its_section_says(folder, tmp_path, form, size):
    config = ImagesConfig(
        generator="folder",
        options={"root": str(folder)},
        cache_dir=str(tmp_path / "cache"),
        stored_format=form,
        stored_size=size,
    )
    store = build_store(config)
    request = ImageRequest("a cat")
    assert store.fill([request], progress=False).made == 1
    with Image.open(io.BytesIO(store.cache.get(store.key(*request)))) as image:
        assert image.format == form.upper()
        assert image.size == ((20, 10) if size is None else (10, 5))


def test_a_scorer_that_is_built_by_hand_is_refused_in_a_run_file(folder, monkeypatch):
    class ByHand(ImageScorer):
        def fingerprint(self):
            return {}

        def score(self, texts, images):
            return None

    monkeypatch.setattr(registry.scorers, "_classes", {"by_hand": ByHand})
    config = ImagesConfig(generator="folder", options={"root": str(folder)}, scorer="by_hand")
    generator = build_generator("folder", config.options)
    with pytest.raises(ConfigError, match="ByHand has no from_config, so no run file can name it"):
        build_scorer(config, generator)


def test_unknown_generators_and_options_are_named(folder):
    with pytest.raises(ConfigError, match="unknown generator 'foldr'; did you mean 'folder'"):
        build_generator("foldr")
    with pytest.raises(ConfigError, match=r"images\.options\.rot.*did you mean"):
        build_generator("folder", {"root": str(folder), "rot": 1})
