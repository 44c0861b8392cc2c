"""Kappas against published and hand-computed values, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lavis.ui.label.agreement import (
    agreement_report,
    cohen_kappa,
    differing,
    fleiss_kappa,
    quadratic_kappa,
)
from lavis.ui.label.judgements import LABELS, Judgement


def test_cohen_by_hand():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    first = ["accept"] * 25 + ["reject"] * 25
    second = ["accept"] * 20 + ["reject"] * 5 + ["accept"] * 10 + ["reject"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_cohen_is_not_defined_without_variation():
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["accept"] * 3, ["accept"] * 3) is None
    assert cohen_kappa(["accept"] * 3, ["reject"] * 3) == pytest.approx(0)


def test_fleiss_published_example():
    # Fleiss (1971) form: 10 subjects, 14 raters, 5 categories; kappa 0.210
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.array(counts)) == pytest.approx(0.20993, abs=1e-5)


def test_fleiss_by_hand():
    # P = (1 + 1/3) / 2 = 2/3; shares 2/3, 1/3: P_e = 5/9; kappa = (6/9 - 5/9) / (4/9) = 1/4
    assert fleiss_kappa(np.array([[3, 0], [1, 2]])) == pytest.approx(0.25)
    assert fleiss_kappa(np.zeros((0, 2))) is None
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])) is None
    for bad in ([[3, 0], [1, 1]], [[1, 0], [0, 1]]):
        with pytest.raises(ValueError, match="the same number of ratings"):
            fleiss_kappa(np.array(bad))


SCORES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30)


@settings(deadline=None, max_examples=50)
@given(SCORES)
def test_quadratic_equals_scikit_learn_on_an_even_scale(pairs):
    first, second = zip(*pairs, strict=True)
    ours = quadratic_kappa([v / 2 for v in first], [v / 2 for v in second])
    if len({*first, *second}) < 2:
        assert ours is None
    else:
        theirs = cohen_kappa_score(first, second, labels=[0, 1, 2], weights="quadratic")
        assert ours == pytest.approx(theirs)


@settings(deadline=None, max_examples=50)
@given(SCORES)
def test_perfect_agreement_is_one_and_kappas_are_symmetric(pairs):
    first, second = (list(column) for column in zip(*pairs, strict=True))
    for kappa in (cohen_kappa, quadratic_kappa):
        assert kappa(first, second) == pytest.approx(kappa(second, first))
        if len(set(first)) > 1:
            assert kappa(first, first) == pytest.approx(1)


def judged(annotator, verdicts, qa=None):
    return {
        f"k{i}": Judgement(
            key=f"k{i}", annotator=annotator, verdict=v, qa_score=qa[i] if qa else None, seconds=i
        )
        for i, v in enumerate(verdicts)
        if v
    }


def test_the_report_of_three_people():
    accept, reject = "accept", "reject"
    report = agreement_report(
        {
            "a": judged("a", [accept, accept, reject, accept], [1, 1, 0, 0.5]),
            "b": judged("b", [accept, reject, reject, None], [1, 0, 0]),
            "c": judged("c", [accept, reject, accept, None]),
        }
    )
    assert report["records_judged"] == 4 and report["records_judged_by_two_or_more"] == 3
    assert report["annotators"]["a"] == {"judged": 4, "accepted": 3, "median_seconds": 1.5}
    first = report["pairs"][0]
    # a: accept, accept, reject; b: accept, reject, reject: p_o = 2/3, p_e = 4/9
    assert (first["annotators"], first["records"]) == (["a", "b"], 3)
    assert first["same_verdict"] == pytest.approx(2 / 3)
    assert first["cohen_kappa"] == pytest.approx(0.4)
    # differences 0, 1, 0; var 2/9 each, means 2/3 and 1/3: 1 - (1/3) / (5/9)
    assert first["qa_score_kappa_quadratic"] == pytest.approx(0.4)
    assert first["r_score_kappa_quadratic"] is None
    # accepts 3, 1, 1 of 3: P = (1 + 1/3 + 1/3) / 3 = 5/9, P_e = (25 + 16) / 81
    fleiss = report["fleiss"]
    assert fleiss["kappa"] == pytest.approx((5 / 9 - 41 / 81) / (40 / 81))
    assert (fleiss["records"], fleiss["people_per_record"]) == (3, 3)
    assert fleiss["unanimous"] == pytest.approx(1 / 3)


def test_a_report_of_nothing():
    report = agreement_report({"a": {}})
    assert report["records_judged"] == 0 and report["pairs"] == [] and "fleiss" not in report


def test_unsure_and_skipped_records_are_no_labels():
    def say(name, **verdicts):
        return {k: Judgement(key=k, annotator=name, verdict=v) for k, v in verdicts.items()}

    judged = {
        "ann": say("ann", a="accept", b="reject", c="unsure", d="accept"),
        "bo": say("bo", a="accept", b="accept", c="accept", d="skip"),
    }
    report = agreement_report(judged)
    assert report["records_judged"] == 4 and report["records_judged_by_two_or_more"] == 2
    assert report["annotators"]["ann"]["judged"] == 3 and report["pairs"][0]["records"] == 2
    labels = {n: {k: j for k, j in s.items() if j.verdict in LABELS} for n, s in judged.items()}
    assert differing(labels) == ["b"]
