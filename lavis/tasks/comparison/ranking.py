"""How well scores rank an image's candidates: accuracy, agreement with people, recall of truths.

C candidates of one record, R raters. Figures of one record lie in [0, 1], agreement in [-1, 1].
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lavis.tasks.statistics import interval

# metric -> the key of a row that it needs
NEEDS = {"accuracy": "label", "circular": "choices", "pairwise": "scores", "recall": "truths"}


def ranks(scores: Sequence[float], seed: int, key: Any) -> np.ndarray:
    """Return the candidates' places `(C,)`, C - 1 for the best; all differ.

    Equal scores are ordered by random numbers. Sherlock's official scorer adds tiny noise of a
    fixed seed to the scores; here the numbers are made from the seed and the record's key, so that
    a figure depends neither on the order of records nor on which ones are scored together.
    """
    rng = random.Random(f"{seed}/{key}")
    noise = [rng.random() for _ in scores]
    places = np.empty(len(scores), dtype=np.int64)
    places[np.lexsort((noise, scores))] = np.arange(len(scores))
    return places


def pairwise_agreement(places: np.ndarray, ratings: np.ndarray) -> float:
    """Return how well places order candidates that a rater rated unequally, from -1 to 1.

    Sherlock's comparison metric for one image and one rater: pairwise accuracy rescaled by
    `2 (accuracy - 0.5)`, 0 without unequal pairs.

    Args:
        places: `(C,)`, larger is better; all differ (see `ranks`).
        ratings: `(C,)` of one rater.
    """
    rated = np.sign(np.subtract.outer(ratings, ratings))
    ordered = np.sign(np.subtract.outer(places, places))
    pairs = rated != 0
    return float((rated * ordered)[pairs].mean()) if pairs.any() else 0.0


def recall_of_truths(places: np.ndarray, truths: np.ndarray) -> float:
    """Return the share of the G best `places` held by the G >= 1 true candidates; both `(C,)`."""
    count = int(truths.sum())
    best = np.argsort(-places, kind="stable")[:count]
    return float(truths[best].mean())


@dataclass(frozen=True)
class Reference:
    """Human judgements of a record's candidates.

    Attributes:
        metric: a key of `NEEDS`.
        values: `(R, C)` ratings, or `(1, C)`: 1 for the right candidate or each true one.
        choices: of `circular`, the candidate chosen in each rotation of the options.
    """

    metric: str
    values: np.ndarray
    choices: tuple[int, ...] = ()

    def judge(self, places: np.ndarray) -> float:
        """Return the metric of one record; `circular`: where options' order changes nothing."""
        if self.metric in ("accuracy", "circular"):
            return float(self.values[0, places.argmax()])
        if self.metric == "recall":
            return recall_of_truths(places, self.values[0] > 0)
        return float(np.mean([pairwise_agreement(places, one) for one in self.values]))

    def judge_model(self, places: np.ndarray) -> float:
        """Return the metric of the model's own ranking; `circular`: right in every rotation."""
        if self.metric == "circular":
            return float(all(self.values[0, choice] for choice in self.choices))
        return self.judge(places)

    def chance(self) -> float:
        """Return the metric's expectation over random orders; `circular` has C of them."""
        if self.metric == "pairwise":
            return 0.0
        share = float(self.values[0].mean())
        return share ** len(self.choices) if self.metric == "circular" else share


def references(row: Mapping[str, Any], count: int) -> list[Reference]:
    """Return what a row can be judged by; nothing where there is nothing to choose from.

    Args:
        row: `label`, `scores` (of one rater, or of several, a list each), `truths` (flags), and
            `choices` by rotation.
        count: C.
    """
    values: dict[str, Any] = {}
    choices = tuple(row.get("choices") or ())
    if count >= 2 and row.get("label") is not None:
        values["accuracy"] = np.eye(count)[[row["label"]]]
        if choices:
            values["circular"] = values["accuracy"]
    if count >= 2 and row.get("scores") is not None:
        values["pairwise"] = np.atleast_2d(np.array(row["scores"], dtype=np.float64))
    if count >= 2 and any(row.get("truths") or ()):
        values["recall"] = np.array([row["truths"]], dtype=np.float64)
    return [
        Reference(metric, array, choices if metric == "circular" else ())
        for metric, array in values.items()
    ]


@dataclass
class Judgements:
    """The figures of one metric, a number for each record.

    Attributes:
        values: of the model. baselines: of rankings that need no model, by name.
        references: each record's key and `Reference`, for the ranking by position.
    """

    values: list[float] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    baselines: dict[str, list[float]] = field(default_factory=dict)
    references: list[tuple[Any, Reference]] = field(default_factory=list)

    def add(
        self, reference: Reference, texts: Sequence[str], places: np.ndarray, *, seed: int, key: Any
    ) -> None:
        """Add the figures of the model, of the texts' lengths alone, and of other people."""
        self.values.append(reference.judge_model(places))
        self.chance.append(reference.chance())
        lengths = [float(len(text)) for text in texts]
        values = {
            "longest": reference.judge(ranks(lengths, seed, key)),
            "shortest": reference.judge(ranks([-length for length in lengths], seed, key)),
        }
        ratings = reference.values
        if reference.metric == "pairwise" and len(ratings) > 1:
            values["human"] = _human(ratings, seed, key)
            values["oracle"] = reference.judge(ranks(ratings.mean(axis=0).tolist(), seed, key))
        for name, value in values.items():
            self.baselines.setdefault(name, []).append(value)
        self.references.append((key, reference))

    def describe(self, *, resamples: int, seed: int) -> dict[str, Any]:
        """Return the figures in percent.

        Returns:
            `records`, `value`, its 95 % bootstrap `interval` over records, `chance` (expectation of
            a random order), `baselines`: `position` ranks by what candidates at a position are
            worth on average over these records (the majority position of a label), `longest` and
            `shortest` by the number of characters; with several raters `human` is each rater
            ranked by the others, `oracle` ranks by their mean.
        """
        baselines = {"position": self._by_position(seed), **self.baselines}
        if any(reference.choices for _, reference in self.references):
            del baselines["position"]  # a position is right in one rotation only
        return {
            "records": len(self.values),
            "value": 100 * float(np.mean(self.values)),
            "interval": interval(np.array(self.values), resamples, seed),
            "chance": 100 * float(np.mean(self.chance)),
            "baselines": {name: 100 * float(np.mean(v)) for name, v in baselines.items()},
        }

    def _by_position(self, seed: int) -> list[float]:
        sums = np.zeros(max(reference.values.shape[1] for _, reference in self.references))
        counts = np.zeros(len(sums))
        for _, reference in self.references:
            width = reference.values.shape[1]
            sums[:width] += reference.values.mean(axis=0)
            counts[:width] += 1
        worth = (sums / counts).tolist()
        return [
            reference.judge(ranks(worth[: reference.values.shape[1]], seed, key))
            for key, reference in self.references
        ]


def _human(ratings: np.ndarray, seed: int, key: Any) -> float:
    """Return the mean agreement of each rater with the mean of the others."""
    agreements = []
    for rater in range(len(ratings)):
        others = np.delete(ratings, rater, axis=0).mean(axis=0)
        agreements.append(pairwise_agreement(ranks(others.tolist(), seed, key), ratings[rater]))
    return float(np.mean(agreements))
