"""Which questions of a benchmark need no images, because the text alone is certain of its answer.

Every question is first answered without images; what that gives is kept in the cache, so that a
run that is started again, on any number of processes, decides the same. Processes tell each other
what they found, and so decide alike whatever a shared folder shows to each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.errors import ConfigError, RecordError
from lavis.common.logger import Progress
from lavis.common.storage.cache import Cache, make_key
from lavis.tasks.planning import make_plan
from lavis.tasks.questions.answers import AnswerRows
from lavis.tasks.questions.requests import Ask, QuestionTokenizer, split_reads

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.datasets.benchmarks.question import Question

logger = logging.getLogger(__name__)

VERSION = 1  # of what is kept
UNIT = 32  # texts asked at a time; fixed, so that no option changes a decision

Predict = Callable[[list[Ask]], "dict[str, Tensor]"]  # rows -> `log_probs.text` (B, R, C)


def certain_questions(
    predict: Predict,
    texts: QuestionTokenizer,
    answers: AnswerRows,
    dataset: BenchmarkDataset,
    world: Any,
    *,
    model: str,
    cache: Cache,
    threshold: float,
) -> frozenset[int]:
    """Return row numbers of questions to answer without images; all processes call this.

    Args:
        predict: answers rows from the text alone.
        world: gives `rank`, `size`, `beat` and `gather`.
        model: identity of the language model.
        threshold: see `lavis.tasks.questions.gate.skip_when_certain`.

    Raises:
        ConfigError: answers are written, so that there are no candidates to be certain among.
    """
    if dataset.kind == "generate":
        raise ConfigError(
            "run.pictures.skip_when_certain: a written answer has no candidates to be certain "
            "among; set it to null"
        )
    plan = make_plan(dataset, UNIT)
    units = range(len(plan))[world.rank :: world.size]
    progress = Progress(len(units), "text-only answers", unit="units", shown=world.rank == 0)
    own: dict[int, float] = {}
    for unit in units:
        asked = _asked(texts, dataset, plan.rows(unit).tolist())
        keys = [_key(asks, model, answers.gate_rule) for _, asks in asked]
        kept = [cache.get_array(key) for key in keys]
        found = [float(value) for value in kept if value is not None]
        if len(found) < len(keys):
            found = _certainties(predict, answers, asked)
            for key, value in zip(keys, found, strict=True):
                cache.put_array(key, np.array(value, dtype=np.float64))
        own |= {question.index: value for (question, _), value in zip(asked, found, strict=True)}
        progress.add(1)
        world.beat("text-only answers")
    progress.close()
    # what the others found comes from them: a shared folder may not show it yet
    values: dict[int, float] = {}
    for one in world.gather(own, "text-only answers"):
        values |= one
    skipped = skip_when_certain(np.array(list(values.values())), threshold)
    logger.info("%d of %d questions need no images", int(skipped.sum()), len(values))
    return frozenset(row for row, skip in zip(values, skipped.tolist(), strict=True) if skip)


def _asked(
    texts: QuestionTokenizer, dataset: BenchmarkDataset, indices: Sequence[int]
) -> list[tuple[Question, list[Ask]]]:
    """Return questions that can be asked, each with its rows as if it stood alone."""
    found = []
    for index in indices:
        try:
            question = dataset.question(index)
            found.append((question, texts.asks(question, 0)))
        except RecordError:
            continue  # its unit reports it
    return found


def _key(asks: Sequence[Ask], model: str, rule: str) -> str:
    said = [[list(ask.ids), [list(read[1]) for read in ask.reads]] for ask in asks]
    return make_key("certainty", VERSION, model=model, rule=rule, asks=said)


def _certainties(
    predict: Predict, answers: AnswerRows, asked: Sequence[tuple[Question, list[Ask]]]
) -> list[float]:
    rows = [replace(ask, question=n) for n, (_, asks) in enumerate(asked) for ask in asks]
    rows = split_reads(rows)
    return answers.certainties([question for question, _ in asked], rows, predict(rows))


def skip_when_certain(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return which questions to answer without images.

    Args:
        probabilities: `(N,)`, the text-only probability of each question's best answer; or `(N, C)`
            of its candidates, whose largest counts.
        threshold: images are skipped from this probability on; None skips none.

    Returns:
        `(N,)` booleans.

    Raises:
        ValueError: the threshold or a probability lies outside [0, 1].
    """
    best = np.asarray(probabilities, dtype=np.float64)
    best = best.max(axis=1) if best.ndim == 2 else best
    if threshold is None:
        return np.zeros(len(best), dtype=bool)
    if not 0 <= threshold <= 1 or (len(best) and not (best.min() >= 0 and best.max() <= 1 + 1e-6)):
        raise ValueError("probabilities and the threshold of skip_when_certain lie in [0, 1]")
    return best >= threshold
