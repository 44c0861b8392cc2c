"""From a model's log-probabilities and tokens to answers, marks, and each question's result row.

Shapes: B rows, R read positions, C tokens read at one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.tasks.candidates import RULES, best, option_scores
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.reading_metrics import first_line, score_answer
from lavis.tasks.questions.requests import Ask, QuestionTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.benchmarks.question import Question

Ranked = list[tuple[str, float]]  # answers with log-probabilities, the likeliest first
RELEASED = ("first_token", "sequence_loss")  # rules of the released scripts
_DIGITS = 6  # decimals of numbers in result rows


class AnswerRows:
    """Makes result rows.

    A row holds `question_id`, `group`, `question`, `gold` and `options`; `predicted` and `marks`
    by column and rule, a value for each prompt; and `values`: of a next word the log-probability of
    the answer and its lead, of options the score of each.
    """

    def __init__(self, config: VisualQuestionsConfig, texts: QuestionTokenizer) -> None:
        self._config, self._texts = config, texts

    def payloads(
        self, questions: Sequence[Question], asks: Sequence[Ask], outputs: dict[str, Tensor]
    ) -> list[dict[str, Any]]:
        """Return the row of each question of a unit.

        Args:
            asks: the unit's rows.
            outputs: `log_probs.<column>` `(B, R, C)` or `tokens.<column>` `(B, n)`.
        """
        values = {name: v.cpu().numpy() for name, v in outputs.items() if name != "shares"}
        made = []
        for question, own in zip(questions, _by_question(questions, asks), strict=True):
            payload = self._head(question)
            fill = {
                "next_word": self._next_word, "choice": self._choice, "generate": self._written
            }[question.kind]  # fmt: skip
            fill(payload, question, own, values)
            made.append(payload if _is_finite(payload["values"]) else _rejected(payload))
        return made

    @property
    def gate_rule(self) -> str:
        """The rule that says how certain a next word is: the corrected one where it is read."""
        return "candidate_likelihood" if self._wants("candidate_likelihood") else "first_token"

    def certainties(
        self, questions: Sequence[Question], asks: Sequence[Ask], outputs: dict[str, Tensor]
    ) -> list[float]:
        """Return how probable the text alone finds its answer to each question, 0 to 1.

        Probabilities are those of the candidates, the mean over prompts; or of the options, each
        given the context. Not a number counts as 0.

        Args:
            outputs: holds `log_probs.text`.
        """
        values = outputs["log_probs.text"].cpu().numpy()
        found = []
        for question, own in zip(questions, _by_question(questions, asks), strict=True):
            if question.kind == "next_word":
                tokens = self._texts.candidates(question.options, question.forms)
                answer = RULES[self.gate_rule]
                ranked = [answer(tokens, one) for one in _read_words(question, own, values)]
                scores = [[score for _, score in one] for one in ranked]
            else:
                options = _read_options(question, own, values)
                scores = [[one["option_likelihood"] for one in options]]
            found.append(float(np.nan_to_num(np.mean([_largest_share(one) for one in scores]))))
        return found

    def _wants(self, rule: str) -> bool:
        if rule == "candidate_likelihood" and self._texts.first_only:
            return False
        return ("released" if rule in RELEASED else "corrected") in self._config.protocols

    @staticmethod
    def _head(question: Question) -> dict[str, Any]:
        gold = question.gold
        return {
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

    def _next_word(
        self,
        payload: dict[str, Any],
        question: Question,
        rows: list[tuple[Ask, int]],
        values: dict[str, np.ndarray],
    ) -> None:
        tokens = self._texts.candidates(question.options, question.forms)
        for column in _model_columns(values):
            log_probs = _read_words(question, rows, values[f"log_probs.{column}"])
            for rule, answer in RULES.items():
                if not self._wants(rule):
                    continue
                ranked = [answer(tokens, one) for one in log_probs]
                self._note_words(payload, question, column, rule, ranked)
                if column == "text" and "best_of_n" in self._config.shown:
                    drawn = [self._draw(question, n, rule, one) for n, one in enumerate(ranked)]
                    self._note_words(payload, question, "best_of_n", rule, drawn)

    @staticmethod
    def _note_words(
        payload: dict[str, Any], question: Question, column: str, rule: str, ranked: list[Ranked]
    ) -> None:
        said = [one[0][0] for one in ranked]
        gold = str(question.gold).lower()
        _note(payload, "predicted", column, rule, said)
        _note(payload, "marks", column, rule, [int(word == gold) for word in said])
        if column != "best_of_n":
            lead = [[one[0][1], one[0][1] - one[1][1] if len(one) > 1 else 0.0] for one in ranked]
            _note(payload, "values", column, rule, _rounded(lead))

    def _choice(
        self,
        payload: dict[str, Any],
        question: Question,
        rows: list[tuple[Ask, int]],
        values: dict[str, np.ndarray],
    ) -> None:
        for column in _model_columns(values):
            scores: dict[str, list[float]] = {}
            for option in _read_options(question, rows, values[f"log_probs.{column}"]):
                for rule, value in option.items():
                    scores.setdefault(rule, []).append(value)
            for rule, one in scores.items():
                if not self._wants(rule):
                    continue
                _note(payload, "values", column, rule, _rounded(one))
                self._note_option(payload, question, column, rule, best(one))
                if column == "text" and "best_of_n" in self._config.shown:
                    ranked = sorted(((str(n), v) for n, v in enumerate(one)), key=lambda p: -p[1])
                    drawn = int(self._draw(question, 0, rule, ranked)[0][0])
                    self._note_option(payload, question, "best_of_n", rule, drawn)

    @staticmethod
    def _note_option(
        payload: dict[str, Any], question: Question, column: str, rule: str, place: int
    ) -> None:
        _note(payload, "predicted", column, rule, [place])
        _note(payload, "marks", column, rule, [int(place == question.gold)])

    def _written(
        self,
        payload: dict[str, Any],
        question: Question,
        rows: list[tuple[Ask, int]],
        values: dict[str, np.ndarray],
    ) -> None:
        assert isinstance(question.gold, tuple)
        for name, tokens in values.items():
            column = name.removeprefix("tokens.")
            for _, row in rows:
                text = self._texts.tokenizer.decode(tokens[row].tolist(), skip_special_tokens=True)
                said = first_line(text)
                _note(payload, "predicted", column, "answer", [said])
                for rule, mark in score_answer(said, question.gold, question.scorer).items():
                    _note(payload, "marks", column, rule, [mark])

    def _draw(self, question: Question, prompt: int, rule: str, ranked: Ranked) -> Ranked:
        """Draw N answers from the probabilities and return those drawn, the likeliest first."""
        logs = np.array([score for _, score in ranked], dtype=np.float64)
        shares = np.exp(logs - logs.max())
        seed = f"{self._config.seed}/{question.group}/{question.question_id}/{prompt}/{rule}"
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
        rng = np.random.default_rng(number)
        drawn = rng.choice(len(ranked), self._config.samples, p=shares / shares.sum())
        return [ranked[place] for place in sorted(set(drawn.tolist()))]


def _by_question(questions: Sequence[Question], asks: Sequence[Ask]) -> list[list[tuple[Ask, int]]]:
    """Return of each question its rows, with their places."""
    rows: list[list[tuple[Ask, int]]] = [[] for _ in questions]
    for row, ask in enumerate(asks):
        rows[ask.question].append((ask, row))
    return rows


def _read_words(
    question: Question, rows: Sequence[tuple[Ask, int]], values: np.ndarray
) -> list[dict[Any, float]]:
    """Return of each prompt the log-probabilities that were read, `values` `(B, R, C)`."""
    log_probs: list[dict[Any, float]] = [{} for _ in question.prompts]
    for ask, row in rows:
        for at, (prefix, (_, wanted)) in enumerate(zip(ask.prefixes, ask.reads, strict=True)):
            numbers = values[row, at, : len(wanted)].tolist()
            found = zip(((prefix, token) for token in wanted), numbers, strict=True)
            log_probs[ask.prompt].update(found)
    return log_probs


def _read_options(
    question: Question, rows: Sequence[tuple[Ask, int]], values: np.ndarray
) -> list[dict[str, float]]:
    """Return each option's scores by rule."""
    read: list[list[float]] = [[] for _ in question.prompts]
    ends = {ask.prompt: ask.ends for ask, _ in rows}
    for ask, row in rows:  # the first option's rows come first
        own = read[ask.prompt]
        if ask.skipped and not own:
            own += read[0][: ask.skipped]
        own += values[row, : len(ask.reads), 0].tolist()
    parts = zip(read, question.starts, question.prompts, strict=True)
    return [
        option_scores(numbers, ends[n], start, text)
        for n, (numbers, start, text) in enumerate(parts)
    ]


def _largest_share(scores: Sequence[float]) -> float:
    """Return the largest of the probabilities that log-probabilities stand for among themselves."""
    logs = np.array(scores, dtype=np.float64)
    return float(1 / np.exp(logs - logs.max()).sum())


def _model_columns(values: dict[str, np.ndarray]) -> list[str]:
    return [name.removeprefix("log_probs.") for name in values if name.startswith("log_probs.")]


def _note(payload: dict[str, Any], part: str, column: str, rule: str, value: list[Any]) -> None:
    payload[part].setdefault(column, {})[rule] = value


def _rounded(value: Any) -> Any:
    return [_rounded(v) for v in value] if isinstance(value, list) else round(value, _DIGITS)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_is_finite(v) for v in value)
    return math.isfinite(value)


def _rejected(payload: dict[str, Any]) -> dict[str, Any]:
    return {"reject": "score is not a number", "question_id": payload["question_id"]}
