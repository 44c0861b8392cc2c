"""A folder of bad records: each is survived, with its own reason."""

import json
import os
import pickle

import pytest
from PIL import Image

from lavis.common.errors import RecordError

NAN = float("nan")


def box(*numbers):
    return [{"name": "1", "boxes": [list(numbers)]}]


def one_region(**changes):
    return {"region": [1], **changes}


# name: (changes to a good record, or a whole line; the reason)
BAD = {
    "missing image": (dict(image="none/b.jpg"), "missing image: none/b.jpg"),
    "no image": (dict(image=...), "missing field: image"),
    "truncated JPEG": (dict(image="cut.jpg"), "broken image: cut.jpg: .*truncated"),
    "not an image": (dict(image="text.png"), "broken image: text.png: not a known"),
    "box outside": (
        one_region(references=box(50, 5, 60, 10)),
        r"box outside the image: region 1 \[50.0, 5.0, 60.0, 10.0\] in 40 x 30",
    ),
    "box left of the image": (one_region(references=box(-9, 5, -1, 10)), "box outside the im"),
    "inverted box": (one_region(references=box(9, 5, 4, 10)), "bad box: region 1 is inverted"),
    "box of NaN": (one_region(references=box(NAN, 5, 9, 10)), "bad box: region 1 is not finite"),
    "short box": (one_region(references=box(1, 2, 3)), "bad box: region 1 has .*expected 4"),
    "no box": (one_region(references=[{"name": "1"}]), "bad box: region 1 has none"),
    "unknown region": (dict(region=[1, 7]), "unknown region id: 7"),
    "empty question": (dict(question=[]), "empty text: question"),
    "blank answer": (dict(answer=[" ", [9]]), "empty text: answer"),
    "no answer": (dict(answer=...), "missing field: answer"),
    "parent folder": (dict(image="../a.png"), r"path leaves the image root: '../a.png'"),
    "absolute path": (dict(image="/etc/passwd"), "path leaves the image root"),
    "link out": (dict(image="link.png"), "path leaves the image root: 'link.png' is a link"),
    "bomb": (dict(image="bomb.png"), "oversized image: bomb.png has 300 x 200 pixels"),
    "malformed line": ('{"image": "a.png", ', "malformed line: Expecting property name"),
    "no object": ("[1, 2]", "malformed line: a JSON object was expected, not list"),
    "region no list": (dict(region="3"), "wrong type: region is str, expected a list"),
    "question no list": (dict(question="What?"), "wrong type: question is str, expected"),
    "region id a word": (dict(region=["x"]), "wrong type: region id 'x' is not a whole"),
    "token an object": (dict(answer=[{"a": 1}]), "wrong type: answer holds {'a': 1}"),
    "image a number": (dict(image=7), "wrong type: image is int, expected a path"),
    "bad label": (dict(label="maybe"), "wrong type: label is 'maybe'"),
}


@pytest.fixture
def bad_folder(images, tmp_path_factory):
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    noise.save(images / "whole.jpg")
    data = (images / "whole.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(data[: len(data) // 2])
    (images / "text.png").write_text("this is not an image")
    Image.new("RGB", (300, 200)).save(images / "bomb.png")
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    noise.save(outside)
    os.symlink(outside, images / "link.png")
    return images


def read_all(dataset):
    """Return the reason of each row, or None for a good one."""
    reasons = []
    for index in range(len(dataset)):
        try:
            dataset.image(dataset.row(index))
            reasons.append(None)
        except RecordError as error:
            reasons.append(error.reason)
    return reasons


def test_every_bad_record_gives_its_reason_and_the_good_ones_stay(lck, bad_folder):
    lines = [json.dumps(lck.record(0))]
    for bad, _ in BAD.values():
        lines += [bad if isinstance(bad, str) else json.dumps(lck.record(**bad))]
        lines += [json.dumps(lck.record(len(lines)))]
    (bad_folder / "r.jsonl").write_text("\n".join(lines))
    dataset = lck.open(bad_folder, str(bad_folder / "r.jsonl"), max_pixels=50_000)
    reasons = read_all(dataset)
    assert len(reasons) == 2 * len(BAD) + 1
    assert reasons[::2] == [None] * (len(BAD) + 1)
    for (name, (_, expected)), reason in zip(BAD.items(), reasons[1::2], strict=True):
        assert reason is not None, name
        with pytest.raises(RecordError, match=expected):
            raise RecordError(reason)
    place = dataset.source(1)
    assert place == {"file": str(bad_folder / "r.jsonl"), "line": 2}
    checked = pickle.loads(pickle.dumps(dataset))
    assert read_all(checked) == reasons


def test_boxes_partly_outside_are_drawn_as_far_as_they_are_inside(lck, images):
    record = lck.record(**one_region(references=box(-5.5, -3.0, 12.0, 99.5)))
    dataset = lck.open(images, lck.write(images / "r.jsonl", [record]))
    assert read_all(dataset) == [None]


def test_links_are_followed_where_that_is_allowed(lck, bad_folder):
    path = lck.write(bad_folder / "r.jsonl", [lck.record(image="link.png")])
    assert read_all(lck.open(bad_folder, path, follow_symlinks=True)) == [None]


def test_an_unknown_id_in_the_text_alone_is_no_error(lck, images):
    record = lck.record(question=["Where", "is", [8], "?"])
    dataset = lck.open(images, lck.write(images / "r.jsonl", [record]))
    assert dataset.row(0).text.startswith("where is  ? answer:")
