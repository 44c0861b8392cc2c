"""From a model's log-probabilities and tokens to answers and each question's result row.

Shapes: B rows, R target positions, C target tokens of one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.tasks.questions.candidates import RULES, Path, Ranking, option_scores
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.reading_metrics import first_line, score_answer
from lavis.tasks.questions.requests import QuestionTokenizer, TextRequest

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.benchmarks.question import Question

Rows = list[tuple[TextRequest, int]]  # the requests of one question, with their places in the unit
RELEASED = ("first_token", "sequence_loss")  # rules of the released scripts
_DIGITS = 6  # decimals of numbers in result rows


class AnswerRows:
    """Makes result rows.

    A row holds `question_id`, `group`, `question`, `gold` and `options`; `predicted` and `marks`
    (1 for a right answer) by column and rule, a value for each prompt; and `values`: of a next word
    the log-probability of the answer and its lead, of options the score of each.
    """

    def __init__(self, config: VisualQuestionsConfig, texts: QuestionTokenizer) -> None:
        self._config, self._texts = config, texts

    def payloads(
        self,
        questions: Sequence[Question],
        requests: Sequence[TextRequest],
        outputs: dict[str, Tensor],
    ) -> list[dict[str, Any]]:
        """Return the row of each question of a unit.

        Args:
            requests: the unit's rows.
            outputs: `log_probs.<column>` `(B, R, C)` or `tokens.<column>` `(B, n)`.
        """
        log_probs, tokens = _by_column(outputs, "log_probs."), _by_column(outputs, "tokens.")
        payloads = []
        for question, rows in zip(questions, _by_question(questions, requests), strict=True):
            row = _ResultRow(question)
            if question.kind == "generate":
                self._written(row, question, rows, tokens)
            else:
                answer = self._next_word if question.kind == "next_word" else self._choice
                for column, values in log_probs.items():
                    answer(row, question, rows, column, values)
            payloads.append(row.checked())
        return payloads

    @property
    def gate_rule(self) -> str:
        """The rule for the certainty of a next word: the corrected one if the run has it."""
        return "candidate_likelihood" if self._wants("candidate_likelihood") else "first_token"

    def certainties(
        self,
        questions: Sequence[Question],
        requests: Sequence[TextRequest],
        outputs: dict[str, Tensor],
    ) -> list[float]:
        """Return how probable the text alone finds its answer to each question, 0 to 1.

        Probabilities are those of the candidates, the mean over prompts; or of the options, each
        given the context. Not a number counts as 0.

        Args:
            outputs: holds `log_probs.text`.
        """
        values = outputs["log_probs.text"].cpu().numpy()
        certainties = []
        for question, rows in zip(questions, _by_question(questions, requests), strict=True):
            if question.kind == "next_word":
                tokens = self._texts.candidates(question.options, question.forms)
                prompts = _prompt_log_probs(question, rows, values)
                rankings = [RULES[self.gate_rule](tokens, one) for one in prompts]
                scores = [[score for _, score in ranking] for ranking in rankings]
            else:
                options = _option_scores(question, rows, values)
                scores = [[one["option_likelihood"] for one in options]]
            mean = np.mean([_largest_probability(one) for one in scores])
            certainties.append(float(np.nan_to_num(mean)))
        return certainties

    def _wants(self, rule: str) -> bool:
        if rule == "candidate_likelihood" and self._texts.first_only:
            return False
        return ("released" if rule in RELEASED else "corrected") in self._config.protocols

    def _draws(self, column: str) -> bool:
        """Return whether `best_of_n` is drawn from the probabilities of this column."""
        return column == "text" and "best_of_n" in self._config.shown

    def _next_word(
        self, row: _ResultRow, question: Question, rows: Rows, column: str, values: np.ndarray
    ) -> None:
        gold = str(question.gold).lower()
        tokens = self._texts.candidates(question.options, question.forms)
        log_probs = _prompt_log_probs(question, rows, values)
        for rule in filter(self._wants, RULES):
            rankings = [RULES[rule](tokens, one) for one in log_probs]
            row.answer(column, rule, [ranking[0][0] for ranking in rankings], gold)
            lead = [[r[0][1], r[0][1] - r[1][1] if len(r) > 1 else 0.0] for r in rankings]
            row.add("values", column, rule, _rounded(lead))
            if self._draws(column):
                drawn = [self._draw(question, n, rule, r) for n, r in enumerate(rankings)]
                row.answer("best_of_n", rule, [ranking[0][0] for ranking in drawn], gold)

    def _choice(
        self, row: _ResultRow, question: Question, rows: Rows, column: str, values: np.ndarray
    ) -> None:
        options = _option_scores(question, rows, values)
        for rule in filter(self._wants, options[0]):
            scores = [option[rule] for option in options]
            row.add("values", column, rule, _rounded(scores))
            row.answer(column, rule, [scores.index(max(scores))], question.gold)
            if self._draws(column):
                ranking = sorted(((str(n), v) for n, v in enumerate(scores)), key=lambda p: -p[1])
                drawn = int(self._draw(question, 0, rule, ranking)[0][0])
                row.answer("best_of_n", rule, [drawn], question.gold)

    def _written(
        self, row: _ResultRow, question: Question, rows: Rows, tokens: dict[str, np.ndarray]
    ) -> None:
        assert isinstance(question.gold, tuple)
        decode = self._texts.tokenizer.decode
        for column, ids in tokens.items():
            for _, place in rows:
                answer = first_line(decode(ids[place].tolist(), skip_special_tokens=True))
                row.add("predicted", column, "answer", [answer])
                scores = score_answer(answer, question.gold, question.scorer)
                for rule, score in scores.items():
                    row.add("marks", column, rule, [score])

    def _draw(self, question: Question, prompt: int, rule: str, ranking: Ranking) -> Ranking:
        """Draw N answers from the probabilities and return those drawn, the likeliest first."""
        logs = np.array([score for _, score in ranking], dtype=np.float64)
        probabilities = np.exp(logs - logs.max())
        seed = f"{self._config.seed}/{question.group}/{question.question_id}/{prompt}/{rule}"
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
        rng = np.random.default_rng(number)
        p = probabilities / probabilities.sum()
        drawn = rng.choice(len(ranking), self._config.samples, p=p)
        return [ranking[place] for place in sorted(set(drawn.tolist()))]


class _ResultRow:
    """The payload of one question, filled column by column."""

    def __init__(self, question: Question) -> None:
        gold = question.gold
        self._payload: dict[str, Any] = {
            "question_id": question.question_id,
            "group": question.group,
            "question": question.title,
            "gold": list(gold) if isinstance(gold, tuple) else gold,
            **({"options": list(question.options)} if question.kind == "choice" else {}),
            **question.meta,
            "predicted": {},
            "marks": {},
            "values": {},
        }

    def add(self, part: str, column: str, rule: str, value: list[Any]) -> None:
        self._payload[part].setdefault(column, {})[rule] = value

    def answer(self, column: str, rule: str, answers: list[Any], gold: Any) -> None:
        self.add("predicted", column, rule, answers)
        self.add("marks", column, rule, [int(answer == gold) for answer in answers])

    def checked(self) -> dict[str, Any]:
        """Return the payload, or a reject if a score is not a number."""
        if _is_finite(self._payload["values"]):
            return self._payload
        question_id = self._payload["question_id"]
        return {"reject": "score is not a number", "question_id": question_id}


def _by_column(outputs: dict[str, Tensor], kind: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(kind): value.cpu().numpy()
        for name, value in outputs.items()
        if name.startswith(kind)
    }


def _by_question(questions: Sequence[Question], requests: Sequence[TextRequest]) -> list[Rows]:
    """Return the rows of each question, with their places."""
    rows: list[Rows] = [[] for _ in questions]
    for row, request in enumerate(requests):
        rows[request.question].append((request, row))
    return rows


def _prompt_log_probs(
    question: Question, rows: Rows, values: np.ndarray
) -> list[dict[tuple[Path, int], float]]:
    """Return the log-probabilities of each prompt's targets, of `values` `(B, R, C)`."""
    log_probs: list[dict[tuple[Path, int], float]] = [{} for _ in question.prompts]
    for request, row in rows:
        for at, (prefix, target) in enumerate(zip(request.prefixes, request.targets, strict=True)):
            numbers = values[row, at, : len(target[1])].tolist()
            keys = ((prefix, token) for token in target[1])
            log_probs[request.prompt].update(zip(keys, numbers, strict=True))
    return log_probs


def _option_scores(question: Question, rows: Rows, values: np.ndarray) -> list[dict[str, float]]:
    """Return each option's scores by rule, from log-probabilities `(B, R, C)`."""
    log_probs: list[list[float]] = [[] for _ in question.prompts]
    ends = {request.prompt: request.ends for request, _ in rows}
    for request, row in rows:  # the first option's rows come first
        own = log_probs[request.prompt]
        if request.skipped and not own:
            own += log_probs[0][: request.skipped]
        own += values[row, : len(request.targets), 0].tolist()
    parts = zip(log_probs, question.starts, question.prompts, strict=True)
    return [
        option_scores(numbers, ends[n], start, text)
        for n, (numbers, start, text) in enumerate(parts)
    ]


def _largest_probability(scores: Sequence[float]) -> float:
    """Return the largest probability of a softmax over log-probabilities."""
    logs = np.array(scores, dtype=np.float64)
    return float(1 / np.exp(logs - logs.max()).sum())


def _rounded(value: Any) -> Any:
    return [_rounded(v) for v in value] if isinstance(value, list) else round(value, _DIGITS)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_is_finite(v) for v in value)
    return math.isfinite(value)
