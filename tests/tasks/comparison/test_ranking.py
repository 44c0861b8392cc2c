"""Figures of ranked candidates, by hand and by the official formulas' check values."""

import numpy as np
import pytest

from lavis.tasks.comparison.ranking import (
    Judgements,
    Reference,
    pairwise_agreement,
    ranks,
    recall_of_truths,
    references,
)


def test_pairwise_agreement_gives_the_official_check_values():
    ratings = np.array([1.0, 2.0, 2.0, 3.0])
    scores = [0.1, 0.4, 0.2, 0.9]
    assert pairwise_agreement(ranks(scores, 0, "a"), ratings) == 1.0
    assert pairwise_agreement(ranks([-s for s in scores], 0, "a"), ratings) == -1.0


def test_pairwise_agreement_by_hand():
    ratings = np.array([1.0, 2.0, 2.0, 3.0])  # five unequal pairs
    places = ranks([0.0, 9.0, 5.0, 4.0], 0, "a")
    # (0,1) (0,2) (0,3) right, (1,3) (2,3) wrong: 3 of 5
    assert pairwise_agreement(places, ratings) == pytest.approx(2 * (3 / 5 - 0.5))
    assert pairwise_agreement(places, np.ones(4)) == 0.0  # nothing to agree with


def test_both_raters_count():
    gold = Reference("pairwise", np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    assert gold.judge(ranks([1.0, 2.0, 3.0], 0, "a")) == 0.0
    gold = Reference("pairwise", np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]))
    assert gold.judge(ranks([1.0, 2.0, 3.0], 0, "a")) == 0.5


def test_equal_scores_are_ordered_by_seed_and_record():
    tied = [ranks([1.0, 1.0, 0.0], seed, key).tolist() for seed in range(8) for key in "ab"]
    assert all(places[2] == 0 for places in tied)
    assert {tuple(places) for places in tied} == {(1, 2, 0), (2, 1, 0)}
    many = {(seed, key): ranks([1.0] * 20, seed, key).tolist() for seed in (3, 4) for key in "ab"}
    assert len({tuple(places) for places in many.values()}) == 4
    assert all(sorted(places) == list(range(20)) for places in many.values())
    assert ranks([1.0] * 20, 3, "a").tolist() == many[3, "a"]
    # the expectation over ties is what a tie is worth: nothing
    ratings = np.array([1.0, 2.0])
    mean = np.mean([pairwise_agreement(ranks([5.0, 5.0], s, "a"), ratings) for s in range(400)])
    assert abs(mean) < 0.15


def test_recall_counts_truths_among_as_many_best():
    truths = np.array([True, False, True, False, True])
    # best three: 4 (0.9), 1 (0.8), 0 (0.7): two of three
    assert recall_of_truths(ranks([0.7, 0.8, 0.1, 0.2, 0.9], 0, "a"), truths) == pytest.approx(
        2 / 3
    )
    # the three worst hold none
    assert recall_of_truths(ranks([0.7, 0.2, 0.8, 0.1, 0.9], 0, "a"), truths) == 1.0
    assert recall_of_truths(ranks([0.2, 0.7, 0.1, 0.8, 0.3], 0, "a"), truths) == pytest.approx(
        1 / 3
    )
    assert Reference("recall", truths[None].astype(float)).chance() == pytest.approx(3 / 5)


def test_what_a_row_is_judged_by():
    assert references({"label": 0}, 1) == []  # nothing to choose from
    row = {"label": 1, "scores": [[1, 2], [2, 1]], "truths": [0, 0]}
    assert [gold.metric for gold in references(row, 2)] == ["accuracy", "pairwise"]
    assert references({"scores": [0.5, 1]}, 2)[0].values.tolist() == [[0.5, 1.0]]


def judged(rows, texts=("a", "bbb", "cc")):
    found = Judgements()
    for number, (row, scores) in enumerate(rows):
        (gold,) = references(row, len(scores))
        found.add(gold, texts[: len(scores)], ranks(scores, 0, number), seed=0, key=number)
    return found.describe(resamples=1000, seed=0)


def test_accuracy_with_chance_position_and_lengths():
    rows = [({"label": 1}, [0, 1, 2]), ({"label": 1}, [0, 2, 1]), ({"label": 0}, [3, 2, 1])]
    figures = judged(rows)
    assert figures["records"] == 3
    assert figures["value"] == pytest.approx(100 * 2 / 3)
    assert figures["chance"] == pytest.approx(100 / 3)
    assert figures["baselines"] == pytest.approx(
        {"position": 100 * 2 / 3, "longest": 100 * 2 / 3, "shortest": 100 / 3}
    )
    # three draws of (1, 1, 0): P(0 right) = 1/27 and P(3 right) = 8/27
    assert figures["interval"] == [0.0, 100.0]


def test_intervals_are_of_95_percent_and_of_the_seed():
    found = Judgements()
    for number in range(16):
        (gold,) = references({"label": number % 2}, 2)
        found.add(gold, ("a", "b"), ranks([1.0, 0.0], 0, number), seed=0, key=number)
    figures = found.describe(resamples=20_000, seed=0)
    assert figures["value"] == 50.0
    # Binomial(16, 1/2): P(<= 3) = .0106, P(<= 4) = .0384; 50 % would be 43.75 to 56.25
    assert figures["interval"] == [25.0, 75.0]
    draw = np.random.default_rng(0)
    found.values = draw.random(40).tolist()
    of = {seed: found.describe(resamples=30, seed=seed)["interval"] for seed in (1, 2)}
    assert found.describe(resamples=30, seed=1)["interval"] == of[1] != of[2]


def test_a_position_is_worth_its_mean_over_the_records_that_have_it():
    rows = [({"label": 0}, [2, 1])] * 3 + [({"label": 2}, [0, 1, 2])] * 2
    figures = judged(rows, texts=("a", "bb", "ccc"))
    # place 0 is right in 3 of 5, place 2 in both records that have it, so that it ranks first there
    assert figures["baselines"]["position"] == 100.0
    assert figures["chance"] == pytest.approx(100 * (3 / 2 + 2 / 3) / 5)
    rows = [({"label": 0}, [2, 1, 0])] * 3 + [({"label": 2}, [0, 1, 2])] * 2
    assert judged(rows)["baselines"]["position"] == pytest.approx(60.0)


@pytest.mark.parametrize("raters", [1, 2])
def test_ties_of_every_baseline_are_ordered_by_the_seed_and_the_record(raters):
    """Texts, places and raters that say nothing: figures are those of the seed's random orders."""
    ratings = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])[:raters]

    def baselines(seed, keys):
        found = Judgements()
        for key in keys:
            row = {"scores": ratings.tolist()} if raters == 2 else {"label": key % 4}
            (gold,) = references(row, 4)
            found.add(gold, ["aa"] * 4, ranks([1.0] * 4, seed, key), seed=seed, key=key)
        return found

    def expected(seed, keys):
        orders = [ranks([1.0] * 4, seed, key) for key in keys]
        if raters == 1:
            return [
                float(order.argmax() == key % 4) for key, order in zip(keys, orders, strict=True)
            ]
        agreed = [[pairwise_agreement(order, one) for one in ratings] for order in orders]
        return [float(np.mean(pair)) for pair in agreed]

    keys = list(range(40))
    for seed in (5, 6):
        found = baselines(seed, keys)
        wanted = expected(seed, keys)
        assert found.values == wanted
        assert found.baselines["longest"] == found.baselines["shortest"] == wanted
        assert found._by_position(seed) == wanted
        assert ("human" in found.baselines) == ("oracle" in found.baselines) == (raters == 2)
        if raters == 2:
            assert found.baselines["oracle"] == wanted
        assert found.describe(resamples=10, seed=seed)["baselines"]["position"] == pytest.approx(
            100 * np.mean(wanted)
        )


def test_what_people_agree_on_when_their_ratings_tie():
    found = Judgements()
    ratings = [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]]
    for key in range(30):
        (gold,) = references({"scores": ratings}, 4)
        found.add(gold, ["a"] * 4, ranks([1.0] * 4, 0, key), seed=9, key=key)
    # the first rater's order is random; the second one cannot be disagreed with by it: 0
    orders = [ranks(ratings[0], 9, key) for key in range(30)]
    wanted = [pairwise_agreement(order, np.array(ratings[1])) / 2 for order in orders]
    assert found.baselines["human"] == pytest.approx(wanted)
    (gold,) = references({"scores": [1.0, 2.0, 3.0, 4.0]}, 4)
    alone = Judgements()
    alone.add(gold, ["a"] * 4, np.arange(4), seed=0, key=0)
    assert set(alone.baselines) == {"longest", "shortest"}  # one rater: nobody to agree with


def test_ties_of_the_raters_mean_are_ordered_by_the_seed_and_the_record():
    ratings = np.array([[0.0, 10.0], [5.0, 0.0], [5.0, 0.0]])  # 10/3 each; two prefer the first
    for seed in (1, 2):
        found = Judgements()
        for key in range(30):
            gold = Reference("pairwise", ratings)
            found.add(gold, ["a", "a"], np.arange(2), seed=seed, key=key)
        firsts = [ranks([0.0, 0.0], seed, key)[0] == 1 for key in range(30)]
        assert found.baselines["oracle"] == pytest.approx([1 / 3 if f else -1 / 3 for f in firsts])


def test_people_against_each_other_and_the_best_possible_order():
    figures = judged([({"scores": [[1, 2, 3], [1, 3, 2]]}, [1, 2, 3])])
    # rater 1 by rater 2: two pairs right, one wrong; the same the other way round
    assert figures["baselines"]["human"] == pytest.approx(100 / 3)
    # the means (1, 2.5, 2.5) settle two pairs; the tied one is right for one rater, wrong for one
    assert figures["baselines"]["oracle"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert figures["value"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert figures["chance"] == 0.0 and figures["interval"] is None
