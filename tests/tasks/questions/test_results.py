"""The table of a benchmark: which columns are compared with which, by hand."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from lavis.generators.config import ImagesConfig
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.results import Group, summarize, table
from lavis.tasks.questions.results import _metrics as metrics

DATASET = SimpleNamespace(
    config=SimpleNamespace(benchmark="imagenetvc", protocol="released"), kind="choice"
)
# marks of one prompt of six questions: images lead text by 3 of 6, shuffled by 1 of 6
MARKS = {
    "text": [1, 0, 0, 0, 0, 0],
    "single": [1, 1, 0, 0, 0, 0],
    "pictures": [0, 1, 1, 1, 1, 0],
    "best_of_n": [1, 1, 1, 0, 0, 0],
    "shuffled": [0, 1, 1, 1, 0, 0],
}

COLUMNS = ["text", "single", "images", "best_of_n", "shuffled"]  # as run files name them


def config(num_images=2, **options):
    options = {"columns": COLUMNS, **options}
    images = ImagesConfig(generator="folder", scorer=None, num_images=num_images)
    return VisualQuestionsConfig(tokenizer="gpt2", images=images, **options)


def question(number, *, columns=tuple(MARKS), group="color", **fields):
    marks = {name: {"first_token": [float(MARKS[name][number])]} for name in columns}
    return {"group": group, "gold": "ab"[number % 2], "marks": marks, **fields}


def gather(payloads):
    groups = {}
    for payload in payloads:
        groups.setdefault(payload["group"], Group()).add(payload)
    return groups


def results_of(payloads, **options):
    return summarize(gather(payloads), DATASET, config(**options), Counter())


def test_each_column_is_compared_with_the_text_and_images_with_the_shuffled():
    found = results_of(map(question, range(6)))["groups"]["color"]
    assert (found["questions"], found["majority"]) == (6, 50.0)
    columns = found["rules"]["first_token"]
    means = {name: column["mean"] for name, column in columns.items()}
    assert means == pytest.approx({n: 100 * sum(m) / 6 for n, m in MARKS.items()})

    def pairs(column, versus):
        one = columns[column][versus]
        return pytest.approx(one["difference"]), one["better"], one["worse"], one["p_value"]

    assert "vs_text" not in columns["text"]
    assert pairs("single", "vs_text") == (100 / 6, 1, 0, 1.0)
    assert pairs("pictures", "vs_text") == (50.0, 4, 1, pytest.approx(12 / 32))
    assert pairs("best_of_n", "vs_text") == (100 / 3, 2, 0, 0.5)
    assert pairs("shuffled", "vs_text") == (100 / 3, 3, 1, pytest.approx(10 / 16))
    assert pairs("pictures", "vs_shuffled") == (100 / 6, 1, 0, 1.0)
    # one gain of six: Binomial(6, 1/6) has P(0) = .335, P(<= 2) = .938, P(<= 3) = .991
    assert columns["pictures"]["vs_shuffled"]["interval"] == pytest.approx([0, 50])
    assert [name for name in columns if "vs_shuffled" in columns[name]] == ["pictures"]


def test_intervals_are_those_of_the_runs_seed_and_resamples():
    payloads = [
        {**question(0), "marks": {"text": {"f1": [n / 40]}, "pictures": {"f1": [n * n / 1600]}}}
        for n in range(40)
    ]

    def intervals(**options):
        columns = results_of(payloads, columns=["text", "images"], **options)
        columns = columns["groups"]["color"]["rules"]["f1"]
        return [columns["text"]["interval"], columns["pictures"]["vs_text"]["interval"]]

    first = intervals(resamples=40, seed=1)
    assert intervals(resamples=40, seed=1) == first
    for other in (intervals(resamples=40, seed=2), intervals(resamples=41, seed=1)):
        assert all(one != two for one, two in zip(first, other, strict=True))


def test_a_run_without_images_shows_the_columns_of_the_text():
    payloads = [question(n, columns=("text", "best_of_n")) for n in range(6)]
    columns = results_of(payloads, num_images=0)["groups"]["color"]["rules"]["first_token"]
    assert list(columns) == ["text", "best_of_n"]


def test_parts_are_counted_apart():
    payloads = [question(n, pictures=[[{"score": 0.3 * (n < 2)}]]) for n in range(5)]
    payloads.append(question(5, shown=True))
    payloads[3]["gold"] = []
    found = results_of(payloads)

    def figures(part):
        rules = found[part]["rules"]["first_token"]
        return found[part]["questions"], rules["text"]["mean"], rules["pictures"]["mean"]

    assert figures("shown") == (3, pytest.approx(100 / 3), pytest.approx(100 / 3))  # 0, 1, 5
    assert figures("not_shown") == (3, 0.0, 100.0)  # 2, 3, 4
    assert figures("no_answer") == (1, 0.0, 100.0)
    assert figures("has_answer") == (5, 20.0, pytest.approx(60.0))
    assert "all" not in found and "mean_of_groups" not in found


def test_the_mean_of_groups_leaves_out_the_questions_asked_the_other_way_round():
    payloads = [question(n, group="size_swapped") for n in (4, 5)]  # comes first in the file
    payloads += [question(n, group="size") for n in range(4)]
    found = results_of(payloads)
    assert "mean_of_groups" not in found  # one group and its control
    assert metrics(found, Counter())["agg_metrics"] == pytest.approx(3 / 4)  # of `size`
    payloads += [question(n, group="color") for n in (0, 5)]
    found = results_of(payloads)
    means = found["mean_of_groups"]["first_token"]
    assert means["pictures"] == pytest.approx((75 + 0) / 2)
    assert means["text"] == pytest.approx((25 + 50) / 2)
    assert found["all"]["questions"] == 8
    said = metrics(found, Counter(rows=9))
    assert said["agg_metrics"] == pytest.approx(0.375) and said["rows"] == 9
    assert said["text_accuracy"] == pytest.approx(37.5)


def test_groups_with_other_prompts_are_joined_by_their_questions_means():
    one, two = question(0), question(1, group="shape")
    for column in two["marks"].values():
        column["first_token"] *= 3  # three prompts
    two["marks"]["pictures"]["first_token"] = [1.0, 0.0, 0.0]
    columns = results_of([one, two])["all"]["rules"]["first_token"]
    assert columns["pictures"]["per_prompt"] == [pytest.approx(100 / 6)]  # (0 + 1/3) / 2
    assert columns["pictures"]["vs_text"]["worse"] == 1


def test_the_main_rule_and_the_lines_of_the_log(caplog):
    payloads = [question(n, columns=("text", "pictures")) for n in range(6)]
    for payload in payloads:
        payload["marks"]["text"]["f1"] = payload["marks"]["pictures"]["f1"] = [0.25, 0.75]
    found = results_of(payloads, main_rule="f1")
    assert found["main_rule"] == "f1"
    assert metrics(found, Counter())["agg_metrics"] == 0.5
    assert found["rules"]["f1"] == {
        "what": "words shared with an accepted answer",
        "protocol": "released",
    }
    assert table(found) == [
        "color (6), first_token: text 16.7, pictures 66.7",
        "color (6), f1: text 50.0 +- 35.4, pictures 50.0 +- 35.4",
    ]
    assert results_of(payloads, main_rule="f2")["main_rule"] == "first_token"
    assert "run.main_rule: 'f2' is none of first_token, f1" in caplog.text
    nothing = results_of([])
    assert metrics(nothing, Counter(rows=0)) == {"agg_metrics": 0.0, "rows": 0}
