"""The released scripts' own files: names, forms and numbers of their results."""

import json

from lavis.tasks.questions.released import ReleasedFiles

COLUMNS = {
    "text": {"per_prompt": [0.0, 50.0], "mean": 25.0, "std": 35.0},
    "pictures": {"per_prompt": [50.0, 100.0], "mean": 75.0, "std": 35.0},
}
NOTES = {
    "first_token": {"what": "", "protocol": "released"},
    "candidate_likelihood": {"what": "", "protocol": "corrected"},
}


def payload(number, words):
    predicted = {"text": {"first_token": ["no", "no"]}, "pictures": {"first_token": words}}
    return {"question_id": f"color-{number}", "group": "the color", "predicted": predicted}


def test_imagenetvc_has_a_file_for_each_prompt(tmp_path):
    files = ReleasedFiles("imagenetvc", "org/model", 2)
    files.add(payload(1, ["red", "blue"]))
    files.add(payload(2, ["green", "white"]))
    groups = {"the color": {"rules": {"first_token": COLUMNS}}}
    files.write(tmp_path, {"rules": NOTES, "groups": groups})
    folder = tmp_path / "the_color"
    assert json.loads((folder / "prompt1.json").read_text()) == [
        {"question_id": 1, "answer": "blue"}, {"question_id": 2, "answer": "white"},
    ]  # fmt: skip
    assert (folder / "results.txt").read_text().splitlines() == [
        "Accuracy for prompt0: 0.5 ", "Accuracy for prompt1: 1.0 ",
        "Mean result: 75.0, Std result: 35.0",
    ]  # fmt: skip


def test_other_benchmarks_have_a_few_lines(tmp_path):
    files = ReleasedFiles("piqa", "org/model", 2)
    whole = {"rules": {"first_token": COLUMNS, "candidate_likelihood": COLUMNS}}
    files.write(tmp_path, {"rules": NOTES, "groups": {"all": whole}})
    assert (tmp_path / "results.txt").read_text().splitlines() == [
        "model_name_or_path: org/model", "TestSet: piqa", "k: 2", "Accuracy: 75.00",
    ]  # fmt: skip


def test_nothing_is_written_without_the_released_rule(tmp_path):
    corrected = {"candidate_likelihood": NOTES["candidate_likelihood"]}
    ReleasedFiles("piqa", "m", 0).write(tmp_path / "none", {"rules": corrected, "groups": {}})
    assert not (tmp_path / "none").exists()
