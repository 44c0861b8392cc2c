"""Odd values in published files: a record is set aside and says why, and nothing ends the run."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavis.common.errors import DataError, NothingDoneError
from lavis.datasets.unified.aokvqa import AokvqaConverter
from lavis.datasets.unified.command import run_converter
from lavis.datasets.unified.sherlock import SherlockConverter
from lavis.datasets.unified.snli_ve import SnliVeConverter
from lavis.datasets.unified.vcr import VcrConverter
from lavis.datasets.unified.visual7w import Visual7wConverter
from lavis.datasets.unified.visualcomet import VisualCometConverter


def converters(samples, **files):
    """Return every converter, each of its file under the name of `samples`."""
    paths = {**vars(samples), **files}
    images = samples.vcr1images
    return {
        "vcr": VcrConverter(annotations=paths["vcr"], image_dir=images),
        "qar": VcrConverter(annotations=paths["vcr"], image_dir=images, task="qar"),
        "sherlock": SherlockConverter(
            annotations=paths["sherlock"], answer_key=paths["answer_key"]
        ),
        "visualcomet": VisualCometConverter(
            annotations=paths["visualcomet"], image_dir=images, count=3
        ),
        "aokvqa": AokvqaConverter(annotations=paths["aokvqa"]),
        "snli_ve": SnliVeConverter(annotations=paths["snli_ve"]),
        "v7w": Visual7wConverter(annotations=paths["v7w"]),
    }


FILES = {"qar": "vcr", "sherlock": "answer_key"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def places_in(value, path=()):
    """Return the paths of everything in a JSON value."""
    found = [path]
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in pairs:
        found += places_in(part, (*path, key))
    return found


def with_part(value, path, part):
    """Return a copy of a JSON value with one part replaced."""
    if not path:
        return part
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = with_part(copied[path[0]], path[1:], part)
    return copied


@pytest.mark.parametrize(
    "name", ["vcr", "qar", "sherlock", "visualcomet", "aokvqa", "snli_ve", "v7w"]
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_odd_values_cost_a_record_and_say_why(session_samples, converted, name, data):
    file = FILES.get(name, name)
    path = getattr(session_samples, file)
    text = path.read_text()
    lines = path.suffix == ".jsonl"
    content = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    place = data.draw(st.sampled_from(places_in(content)[1:]))
    changed = with_part(content, place, data.draw(JSON))
    odd = session_samples.save(f"odd{path.suffix}", changed, lines=lines)
    try:
        found = converted(converters(session_samples, **{file: odd})[name])
    except (DataError, NothingDoneError) as error:
        assert "no record could be made" in str(error) or "odd" in str(error)
        return
    assert all(reject["reason"] for reject in found.rejects)
    for record in found.records:
        assert record["image"].split("/")[-1] not in ("None", "None.jpg")
        assert all(len(choice["text_output"]) for choice in record["choices"])


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("v7w", {"qa_pairs": [None]}, "wrong type: the item is NoneType, expected an object"),
        (
            "v7w",
            {"qa_pairs": [{"qa_id": 1, "question": "q", "answer": "a"}]},
            "missing field: mult",
        ),
        ("v7w", {"filename": None}, "missing field: filename"),
        ("aokvqa", {"choices": "toothpick"}, "wrong type: choices is str, expected a list"),
        ("aokvqa", {"split": None}, "missing field: split"),
        ("aokvqa", {"correct_choice_idx": True}, "wrong type: label True is not a whole number"),
        ("aokvqa", {"question": " "}, "empty question: it has no words"),
        ("snli_ve", {"Flickr30K_ID": None}, "missing field: Flickr30K_ID"),
        ("vcr", {"img_fn": None}, "missing field: img_fn"),
        ("qar", {"answer_label": -1}, "wrong label: -1 of 4 answers"),
        ("visualcomet", {"before": "make tea"}, "wrong type: before is str, expected a list"),
    ],
)
def test_what_was_read_as_something_else_is_refused(samples, converted, name, change, reason):
    file = FILES.get(name, name)
    path = getattr(samples, file)
    text = path.read_text()
    if name == "v7w":
        content = json.loads(text)
        content["images"].insert(0, {**content["images"][1], **change})
    elif path.suffix == ".jsonl":
        content = [json.loads(line) for line in text.splitlines()]
        content[0] |= change
    else:
        content = json.loads(text)
        content.insert(0, {**content[0], **change})
    odd = samples.save(f"odd{path.suffix}", content, lines=path.suffix == ".jsonl")
    found = converted(converters(samples, **{file: odd})[name])
    assert found.records
    assert any(reject["reason"].startswith(reason) for reject in found.rejects), found.rejects


def test_no_record_is_an_error_and_leaves_the_output_alone(samples, tmp_path, capsys):
    output = tmp_path / "records.jsonl"
    output.write_text("from before")
    empty = samples.save("empty.jsonl", [], lines=True)
    assert run_converter(SnliVeConverter, "", [str(empty), "--output", str(output)]) != 0
    assert "no record could be made of 0 items" in capsys.readouterr().err
    bad = samples.save("bad.jsonl", [{"x": 1}] * 2, lines=True)
    assert run_converter(SnliVeConverter, "", [str(bad), "--output", str(output)]) != 0
    said = capsys.readouterr().err
    assert "no record could be made of 2 items; 2 set aside, missing field" in said
    assert output.read_text() == "from before"
    rejects = (tmp_path / "records.jsonl.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [1, 2]
