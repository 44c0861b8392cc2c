"""The image store: keys, sharing, resuming, damage, many writers, features and scores."""

import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis.common.errors import ConfigError, DataError
from lavis.common.storage.cache import Cache
from lavis.generators.base import (
    FeaturesGenerator,
    ImageGenerator,
    ImageRequest,
    ImageScorer,
    image_requests,
)
from lavis.generators.store import FillReport, ImageStore


class NoiseGenerator(ImageGenerator):
    """Images that are a function of the request's seed; counts what it draws."""

    name = "noise"
    batch_size = 3

    def __init__(self, size=(12, 8), version=1):
        self.size, self.version, self.drawn = size, version, []

    @classmethod
    def from_config(cls, config):
        return cls()

    def fingerprint(self):
        return {"name": self.name, "version": self.version, "size": list(self.size)}

    def generate(self, requests):
        assert len(requests) <= self.batch_size
        self.drawn += requests
        return [self._image(request) for request in requests]

    def _image(self, request):
        rng = np.random.default_rng(request.random_seed)
        width, height = self.size
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


class LengthFeatures(FeaturesGenerator):
    """Features that hold the prompt's length."""

    name = "length"
    uses_seed = False
    shape = (1, 2)

    @classmethod
    def from_config(cls, config):
        return cls()

    def fingerprint(self):
        return {"name": self.name}

    def generate(self, requests):
        return [np.full((1, 2), len(r.prompt) + r.index, dtype=np.float32) for r in requests]


class RedScorer(ImageScorer):
    """Mean of the red channel, plus the text's length in thousandths; counts its calls."""

    batch_size = 2

    def __init__(self):
        self.pairs = 0

    def fingerprint(self):
        return {"name": "red"}

    def score(self, texts, images):
        self.pairs += len(texts)
        red = [np.asarray(image)[..., 0].mean() / 255 for image in images]
        return np.array([r + len(t) / 1000 for r, t in zip(red, texts, strict=True)], "float32")


REQUESTS = image_requests(["a cat", "a dog", "a cat", "a cow", "a hen", "a cat"], seed=5)


@pytest.mark.parametrize("format", ["webp", "png"])
def test_a_stored_image_is_the_drawn_one(tmp_path, format):
    generator = NoiseGenerator()
    store = ImageStore(Cache(tmp_path), generator, format=format)
    store.fill(REQUESTS, progress=False)
    for request in REQUESTS:
        stored = store.image(store.key(*request))
        assert stored.mode == "RGB"
        np.testing.assert_array_equal(stored, generator._image(request))


def test_what_is_stored_is_not_drawn_again(tmp_path):
    first, second = NoiseGenerator(), NoiseGenerator()
    done = ImageStore(Cache(tmp_path), first).fill(REQUESTS[:2] + REQUESTS[:1], progress=False)
    assert done == FillReport(share=2, made=2)
    store = ImageStore(Cache(tmp_path), second)
    assert store.missing(REQUESTS + REQUESTS) == REQUESTS[2:]
    assert store.fill(REQUESTS, progress=False) == FillReport(share=6, made=4)
    assert second.drawn == REQUESTS[2:]
    assert store.missing(REQUESTS) == []


def test_everything_an_image_depends_on_is_in_its_key(tmp_path):
    def key(*request, size=None, format="webp", version=1):
        generator = NoiseGenerator(version=version)
        return ImageStore(Cache(tmp_path), generator, size=size, format=format).key(*request)

    keys = [
        key("a cat", 0, 0),
        key("a cat", 1, 0),
        key("a cat", 0, 1),
        key("a dog", 0, 0),
        key("a cat", size=4),
        key("a cat", format="png"),
        key("a cat", version=2),
    ]
    assert len(set(keys)) == len(keys)
    assert key("a cat") == keys[0] and keys[0].startswith("picture-")


@settings(max_examples=20, deadline=None)
@given(world=st.integers(1, 5), order=st.permutations(range(len(REQUESTS))))
def test_images_do_not_depend_on_order_or_world_size(tmp_path_factory, world, order):
    store = ImageStore(Cache(tmp_path_factory.mktemp("cache")), NoiseGenerator())
    reports = [
        store.fill([REQUESTS[i] for i in order], rank=rank, world_size=world, progress=False)
        for rank in range(world)
    ]
    assert sum(report.made for report in reports) == sum(r.share for r in reports) == 6
    for request in REQUESTS:
        expected = NoiseGenerator()._image(request)
        np.testing.assert_array_equal(store.image(store.key(*request)), expected)


def test_large_images_are_reduced(tmp_path):
    store = ImageStore(Cache(tmp_path), NoiseGenerator(size=(60, 40)), size=10)
    assert store.images([ImageRequest("a cat")])[0].size == (15, 10)
    small = ImageStore(Cache(tmp_path), NoiseGenerator(size=(6, 4)), size=10)
    assert small.images([ImageRequest("a cat")])[0].size == (6, 4)


def test_a_damaged_image_is_made_again(tmp_path):
    store = ImageStore(Cache(tmp_path), NoiseGenerator())
    store.fill(REQUESTS, progress=False)
    key = store.key(*REQUESTS[1])
    path = store.cache.path(key)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="is not stored, or damaged; draw it with"):
        store.image(key)
    assert store.missing(REQUESTS) == []
    assert store.missing(REQUESTS, verify=True) == [REQUESTS[1]]
    again = store.images(REQUESTS[:2])[1]
    np.testing.assert_array_equal(again, NoiseGenerator()._image(REQUESTS[1]))
    path.write_bytes(b"")
    assert store.fill(REQUESTS, verify=True, progress=False).made == 1


def _fill(root, start):
    start.wait()
    ImageStore(Cache(root), NoiseGenerator()).fill(REQUESTS * 3, progress=False)


def test_two_writers_leave_whole_images(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    writers = [context.Process(target=_fill, args=(tmp_path, start)) for _ in range(2)]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    store = ImageStore(Cache(tmp_path), NoiseGenerator())
    assert store.missing(REQUESTS, verify=True) == []
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6


def test_the_seed_counts_only_where_it_is_used(tmp_path):
    store = ImageStore(Cache(tmp_path), LengthFeatures())
    assert store.key("a", 0, 1) == store.key("a", 0, 2) != store.key("a", 1, 1)


def test_text_features_take_the_place_of_images(tmp_path):
    store = ImageStore(Cache(tmp_path), LengthFeatures())
    assert store.makes_features
    assert store.fill(REQUESTS, progress=False).made == 6
    features = store.text_features(REQUESTS)
    assert features.shape == (6, 1, 2) and features.dtype == np.float32
    assert features[:, 0, 0].tolist() == [5, 5, 6, 5, 5, 7]
    assert store.text_features([]).shape == (0, 1, 2)
    with pytest.raises(ConfigError, match="'length' makes features, no images"):
        store.images(REQUESTS)
    with pytest.raises(ConfigError, match="'noise' makes images"):
        ImageStore(Cache(tmp_path), NoiseGenerator()).text_features(REQUESTS)


def test_features_are_kept_by_image_and_tower(tmp_path):
    store = ImageStore(Cache(tmp_path), NoiseGenerator())
    key = store.key("a cat")
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    assert store.features(key, "tower-1") is None
    store.put_features(key, "tower-1", array)
    np.testing.assert_array_equal(store.features(key, "tower-1"), array)
    assert store.features(key, "tower-2") is None
    assert store.features(store.key("a cat", 1), "tower-1") is None


def test_scores_are_computed_once(tmp_path):
    store, scorer = ImageStore(Cache(tmp_path), NoiseGenerator()), RedScorer()
    wanted = [REQUESTS[1], REQUESTS[0], REQUESTS[1]]
    scores = store.scores(wanted, scorer)
    expected = [np.asarray(NoiseGenerator()._image(r))[..., 0].mean() / 255 + 0.005 for r in wanted]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.dtype == np.float32 and scorer.pairs == 2
    np.testing.assert_array_equal(store.scores(wanted, scorer), scores)
    assert scorer.pairs == 2
    other = store.scores(wanted[:1], scorer, ["another text"])
    np.testing.assert_allclose(other, scores[0] + 0.007, atol=1e-6)
    assert store.scores([], scorer).shape == (0,)
