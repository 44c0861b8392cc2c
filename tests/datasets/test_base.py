"""Training rows: a function of seed, epoch and row number, and nothing else."""

import pickle

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lavis.common.errors import DataError
from lavis.datasets.base import TrainingView
from lavis.datasets.rows import RejectedRow


@pytest.fixture
def dataset(lck, images):
    records = [lck.record(i, reject_label=i % 2) for i in range(8)]
    records[5] = lck.record(5, reject_label=0, image="gone.png")
    return lck.open(images, lck.write(images / "r.jsonl", records), split="train")


def items(view):
    return [view[i] for i in range(len(view))]


def same(first, second):
    if isinstance(first, RejectedRow):
        return first == second
    return first[0] == second[0] and torch.equal(first[1], second[1])


def test_an_item_depends_on_seed_epoch_and_row_only(dataset):
    view = TrainingView(dataset, seed=3)
    expected = items(view)
    torch.manual_seed(123)
    backwards = [view[i] for i in reversed(range(len(view)))][::-1]
    assert all(map(same, expected, backwards))
    other = pickle.loads(pickle.dumps(view))
    assert all(map(same, expected, items(other)))
    loader = DataLoader(view, batch_size=None, num_workers=2, collate_fn=lambda item: item)
    assert all(map(same, expected, loader))
    view.set_epoch(1)
    assert not all(map(same, expected, items(view)))
    assert not all(map(same, expected, items(TrainingView(dataset, seed=4))))


def test_a_batch_keeps_the_usable_rows_and_lists_the_others(dataset):
    view = TrainingView(dataset, seed=3)
    samples = view.collate(items(view))
    assert [row.index for row in samples["rows"]] == [0, 1, 2, 3, 4, 6, 7]
    assert samples["label"].tolist() == [1, 0, 1, 0, 1, 1, 0]
    assert samples["image"].shape == (7, 3, 16, 16)  # augmented: no two are alike
    assert samples["image_index"].tolist() == list(range(7))
    (reject,) = samples["rejects"]
    assert reject.reason == "missing image: gone.png"
    assert (reject.index, reject.source["line"]) == (5, 6)


def test_a_batch_of_rejects_only_is_empty(dataset):
    view = TrainingView(dataset, seed=3)
    samples = view.collate([view[5]])
    assert samples["rows"] == samples["text_input"] == []
    assert "image" not in samples


class Features:
    def __init__(self, known):
        self.known = known

    def get(self, key):
        return self.known.get(key)


def test_images_or_features_are_shared_where_nothing_is_random(lck, images):
    records = [lck.record(i, reject_label=0) for i in range(4)]
    dataset = lck.open(images, lck.write(images / "r.jsonl", records), split="test")
    view = TrainingView(dataset, seed=0)
    samples = view.collate(items(view))
    assert samples["image"].shape == (1, 3, 16, 16)
    assert samples["image_index"].tolist() == [0, 0, 0, 0]
    key = dataset.row(0).image_key
    cached = TrainingView(dataset, seed=0, feature_cache=Features({key: torch.ones(5, 6)}))
    samples = cached.collate(items(cached))
    assert samples["vision_features"].shape == (1, 5, 6)
    assert "image" not in samples
    with pytest.raises(DataError, match="features of some images are missing"):
        cached.collate([cached[0], view[1]])


@pytest.mark.parametrize("words", ["on the left", "that is right"])
def test_an_image_is_mirrored_with_its_text_or_not_at_all(lck, images, words):
    image = Image.new("RGB", (64, 48), "black")
    image.paste("white", (0, 0, 32, 48))  # the left half
    image.save(images / "halves.png")
    record = lck.record(0, image="halves.png", region=[], region_all=[], reject_label=0)
    record |= {"question": ["what", "is", *words.split(), "?"], "answer": ["white"]}
    record |= {"rationale": ["seen"]}
    node = {"name": "blip2_image_train", "image_size": 16, "swap_sides": True}
    dataset = lck.open(
        images,
        lck.write(images / "r.jsonl", [record]),
        split="train",
        vis_processor={"train": node},
        region_prob=1.0,
    )
    seen = set()
    for seed in range(20):
        row, pixels = TrainingView(dataset, seed=seed)[0]
        white_left = bool(pixels[:, :, 0].mean() > pixels[:, :, -1].mean())
        seen.add((white_left, "left" in row.text, "right" in row.text))
    mirrored = {(True, True, False), (False, False, True)}
    assert seen == (mirrored if words == "on the left" else {(True, False, True)})
