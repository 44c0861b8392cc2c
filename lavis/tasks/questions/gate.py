"""Which questions of a benchmark need no images, because the text alone is certain of its answer.

Every question is first answered without images; the result is cached, so that a restarted run, on
any number of processes, decides the same. Processes exchange their results, and so decide alike
whatever a shared folder shows to each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lavis.common.errors import ConfigError, RecordError
from lavis.common.logger import Progress
from lavis.common.storage.cache import Cache, make_key
from lavis.tasks.planning import make_plan
from lavis.tasks.questions.answers import AnswerRows
from lavis.tasks.questions.requests import QuestionTokenizer, TextRequest, split_targets

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.common.dist import World
    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.datasets.benchmarks.question import Question

logger = logging.getLogger(__name__)

VERSION = 1  # of what is kept
UNIT = 32  # texts answered at a time; fixed, so that no option changes a decision

Predict = Callable[[list[TextRequest]], "dict[str, Tensor]"]  # rows -> `log_probs.text` (B, R, C)


def certain_questions(
    predict: Predict,
    texts: QuestionTokenizer,
    answers: AnswerRows,
    dataset: BenchmarkDataset,
    world: World,
    *,
    model: str,
    cache: Cache,
    threshold: float,
) -> frozenset[int]:
    """Return row numbers of questions to answer without images; all processes call this.

    Args:
        predict: answers rows from the text alone.
        model: identity of the language model.
        threshold: see `skip_when_certain`.

    Raises:
        ConfigError: answers are written, so that there are no candidates to be certain among.
    """
    if dataset.kind == "generate":
        raise ConfigError(
            "run.images.skip_when_certain: a written answer has no candidates to be certain "
            "among; set it to null"
        )
    plan = make_plan(dataset, UNIT)
    units = range(len(plan))[world.rank :: world.size]
    progress = Progress(len(units), "text-only answers", unit="units", shown=world.rank == 0)
    own: dict[int, float] = {}
    for unit in units:
        pairs = _requests_of_rows(texts, dataset, plan.rows(unit).tolist())
        keys = [_key(requests, model, answers.gate_rule) for _, requests in pairs]
        kept = [cache.get_array(key) for key in keys]
        certainties = [float(value) for value in kept if value is not None]
        if len(certainties) < len(keys):
            certainties = _certainties(predict, answers, pairs)
            for key, value in zip(keys, certainties, strict=True):
                cache.put_array(key, np.array(value, dtype=np.float64))
        own |= {q.index: value for (q, _), value in zip(pairs, certainties, strict=True)}
        progress.add(1)
        world.beat("text-only answers")
    progress.close()
    # the others' results come from them: a shared folder may not show them yet
    values: dict[int, float] = {}
    for one in world.gather(own, "text-only answers"):
        values |= one
    skipped = skip_when_certain(np.array(list(values.values())), threshold)
    logger.info("%d of %d questions need no images", int(skipped.sum()), len(values))
    return frozenset(row for row, skip in zip(values, skipped.tolist(), strict=True) if skip)


def _requests_of_rows(
    texts: QuestionTokenizer, dataset: BenchmarkDataset, indices: Sequence[int]
) -> list[tuple[Question, list[TextRequest]]]:
    """Return the usable questions, each with its rows as if it stood alone."""
    pairs = []
    for index in indices:
        try:
            question = dataset.question(index)
            pairs.append((question, texts.requests(question, 0)))
        except RecordError:
            continue  # its unit reports it
    return pairs


def _key(requests: Sequence[TextRequest], model: str, rule: str) -> str:
    parts = [[list(row.ids), [list(tokens) for _, tokens in row.targets]] for row in requests]
    return make_key("certainty", VERSION, model=model, rule=rule, asks=parts)


def _certainties(
    predict: Predict, answers: AnswerRows, pairs: Sequence[tuple[Question, list[TextRequest]]]
) -> list[float]:
    rows = [replace(row, question=n) for n, (_, requests) in enumerate(pairs) for row in requests]
    rows = split_targets(rows)
    return answers.certainties([question for question, _ in pairs], rows, predict(rows))


def skip_when_certain(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return which questions to answer without images, `(N,)` booleans.

    Args:
        probabilities: `(N,)`, the text-only probability of each question's best answer.
        threshold: images are skipped from this probability on.

    Raises:
        ValueError: the threshold or a probability lies outside [0, 1].
    """
    values = np.asarray(probabilities, dtype=np.float64)
    outside = len(values) and not (values.min() >= 0 and values.max() <= 1 + 1e-6)
    if not 0 <= threshold <= 1 or outside:
        raise ValueError("probabilities and the threshold of skip_when_certain lie in [0, 1]")
    return values >= threshold
