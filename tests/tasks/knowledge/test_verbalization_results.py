"""Descriptors of stages become a record an image, rejects, a summary and a page."""

import json

import pytest

from lavis.common.errors import NothingDoneError
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.records import JsonLinesFile
from lavis.tasks.knowledge.verbalization_results import add_descriptors, write_results


def entry(**more):
    return {"obj_guess": "dog", "boxes": [[1, 1, 5, 4]], **more}


def scene(name, regions=1):
    locations = {str(number): entry() for number in range(regions)}
    return {"image": name, "record": {
        "image": name, "region_locations": locations, "width": 8, "height": 6,
    }}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the results of stages, each given by its lines."""

    def results(**stages):
        for name, lines in stages.items():
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = {name: JsonLinesFile(str(tmp_path / name)) for name in stages}
        return write_results(tmp_path, files, ImageRoot(str(tmp_path)), 4)

    return results


def test_descriptors_of_several_stages_are_added_to_one_record():
    record = scene("a", regions=2)["record"]
    add_descriptors(record, {"captions": ["one"], "concepts": {"places": ["park"]}})
    regions = {"1": {"caption": "a dog", "attributes": ["red", "old"]}, "7": {"caption": "none"}}
    add_descriptors(record, {"captions": ["two"], "concepts": {"objects": ["dog"]}})
    add_descriptors(record, {"regions": regions})
    add_descriptors(record, {"regions": {"1": {"attributes": ["old", "wet"]}}})
    assert record["captions"] == ["one", "two"]
    assert record["concepts"] == {"places": ["park"], "objects": ["dog"]}
    assert record["region_locations"]["0"] == entry()
    added = {"caption": "a dog", "attributes": ["red", "old", "wet"]}
    assert record["region_locations"]["1"] == entry(**added)


def test_an_image_is_a_record_or_a_reject_and_missing_texts_are_counted(write, tmp_path):
    summary = write(
        pictures=[scene("a"), {"image": "b", "reject": "broken image: b"}, scene("c", regions=2)],
        captions=[
            {"image": "a", "captions": ["a dog"]},
            {"image": "b"},
            {"image": "c", "failed": ["refusal: no"], "left": ["HTTP 500: down"]},
        ],
    )
    records = [json.loads(line) for line in (tmp_path / "verbalized.jsonl").open()]
    assert [record["image"] for record in records] == ["a", "c"]
    assert records[0]["region_locations"] == {"0": entry(caption="", attributes=[])}
    assert (records[0]["captions"], records[1]["captions"]) == (["a dog"], [])
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").open()]
    assert [(r["row"], r["stage"], r["kind"], r["rejected"]) for r in rejects] == [
        (1, "pictures", "picture", True),
        (2, "captions", "failed", False),
        (2, "captions", "left", False),
    ]
    assert not summary["complete"]
    assert (summary["written"], summary["rejected"], summary["regions"]) == (2, 1, 3)
    assert summary["reasons"] == {"captions: refusal": 1, "pictures: broken image": 1}
    assert summary["left_by_reason"] == {"captions: HTTP 500": 1}
    assert summary["stages"]["captions"] == {"described": 1, "failed": 1, "left": 1}
    assert "1 text left for the next start" in (tmp_path / "report.html").read_text()


def test_a_run_that_describes_nothing_is_an_error_after_its_files_are_written(write, tmp_path):
    broken = {"image": "a", "reject": "broken image: a"}
    with pytest.raises(NothingDoneError, match=r"every image was rejected; see rejects\.jsonl"):
        write(pictures=[broken], captions=[{"image": "a"}])
    failed = {"image": "a", "failed": ["refusal: no"]}
    with pytest.raises(NothingDoneError, match=r"described by stages\.captions \(captions: ref"):
        write(pictures=[scene("a")], captions=[failed])
    assert json.loads((tmp_path / "summary.json").read_text())["written"] == 1
