"""Converters set odd items aside one by one, and refuse files that are none of theirs in words."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import ODD, as_json, spoiled, write_lines

from lavis.common.errors import DataError, NothingDoneError, RecordError
from lavis.datasets.unified.choices import AokvqaConverter, SnliVeConverter, Visual7wConverter
from lavis.datasets.unified.convert import convert, run_converter
from lavis.datasets.unified.gar_bench import GarBenchConverter
from lavis.datasets.unified.sherlock import SherlockConverter
from lavis.datasets.unified.vcr import VcrConverter
from lavis.datasets.unified.visualcomet import VisualCometConverter


def vcr(samples, path):
    return VcrConverter(annotations=path, image_dir=samples.vcr1images)


def vcr_reasons(samples, path):
    return VcrConverter(annotations=path, image_dir=samples.vcr1images, task="qar", regions="all")


def sherlock_key(samples, path):
    return SherlockConverter(annotations=samples.sherlock, answer_key=path)


def sherlock(samples, path):
    return SherlockConverter(annotations=path, answer_key=samples.answer_key)


def visualcomet(samples, path):
    return VisualCometConverter(annotations=path, image_dir=samples.vcr1images, count=3)


def aokvqa(samples, path):
    return AokvqaConverter(annotations=path)


def snli_ve(samples, path):
    return SnliVeConverter(annotations=path)


def visual7w(samples, path):
    return Visual7wConverter(annotations=path, shuffle=1)


def gar_bench(samples, path):
    return GarBenchConverter(annotations=path, image_root=samples.images)


# converter -> the attribute of `samples` that it reads
MAKERS = {
    vcr: "vcr",
    vcr_reasons: "vcr",
    sherlock_key: "answer_key",
    sherlock: "sherlock",
    visualcomet: "visualcomet",
    aokvqa: "aokvqa",
    snli_ve: "snli_ve",
    visual7w: "v7w",
    gar_bench: "gar",
}


@pytest.mark.parametrize("make", list(MAKERS), ids=lambda make: make.__name__)
@settings(ODD, max_examples=40)
@given(data=st.data())
def test_an_item_is_converted_or_set_aside(session_samples, tmp_path, make, data):
    source = getattr(session_samples, MAKERS[make])
    path = tmp_path / source.name
    if source.suffix == ".jsonl":
        items = [json.loads(line) for line in source.read_text().splitlines()]
        write_lines(path, [data.draw(spoiled(item)) for item in items])
    else:
        path.write_text(as_json(data.draw(spoiled(json.loads(source.read_text())))))
    output, rejects = tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    output.unlink(missing_ok=True)  # the folder serves all examples
    try:
        counts = convert(make(session_samples, path), output, rejects=rejects)
    except NothingDoneError:
        assert rejects.is_file() and not output.is_file()
        return
    except DataError as error:
        assert not isinstance(error, RecordError)
        return
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    set_aside = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()]
    assert (len(records), len(set_aside)) == (counts["records"], counts["rejected"])
    assert all(reject["reason"] for reject in set_aside)
    for record in records:
        assert record["image"].split("/")[-1] not in ("None", "None.jpg")
        assert all(len(choice["text_output"]) for choice in record["choices"])


def test_bytes_that_are_not_utf8_and_long_numbers_cost_their_lines(session_samples, tmp_path):
    good = session_samples.vcr.read_bytes().splitlines()[0]
    path = tmp_path / "val.jsonl"
    path.write_bytes(b"\n".join([good, b'{"a": "\xff"}', b'{"a": ' + b"7" * 5000 + b"}", good]))
    counts = convert(vcr(session_samples, path), tmp_path / "o.jsonl", rejects=tmp_path / "r.jsonl")
    assert (counts["records"], counts["rejected"]) == (2, 2)
    assert counts["reasons"] == {"malformed line": 2}


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (visual7w, {"qa_pairs": [None]}, "wrong type: the item is NoneType, expected an object"),
        (
            visual7w,
            {"qa_pairs": [{"qa_id": 1, "question": "q", "answer": "a"}]},
            "missing field: mult",
        ),
        (visual7w, {"filename": None}, "missing field: filename"),
        (aokvqa, {"choices": "toothpick"}, "wrong type: choices is str, expected a list"),
        (aokvqa, {"split": None}, "missing field: split"),
        (aokvqa, {"correct_choice_idx": True}, "wrong type: label True is not a whole number"),
        (aokvqa, {"question": " "}, "empty question: it has no words"),
        (snli_ve, {"Flickr30K_ID": None}, "missing field: Flickr30K_ID"),
        (vcr, {"img_fn": None}, "missing field: img_fn"),
        (vcr_reasons, {"answer_label": -1}, "wrong label: -1 of 4 answers"),
        (visualcomet, {"before": "make tea"}, "wrong type: before is str, expected a list"),
    ],
)
def test_what_was_read_as_something_else_is_refused(samples, converted, make, change, reason):
    path = getattr(samples, MAKERS[make])
    text = path.read_text()
    if make is visual7w:
        content = json.loads(text)
        content["images"].insert(0, {**content["images"][1], **change})
    elif path.suffix == ".jsonl":
        content = [json.loads(line) for line in text.splitlines()]
        content[0] |= change
    else:
        content = json.loads(text)
        content.insert(0, {**content[0], **change})
    odd = samples.save(f"odd{path.suffix}", content, lines=path.suffix == ".jsonl")
    found = converted(make(samples, odd))
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
