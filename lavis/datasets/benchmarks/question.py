"""The common form of benchmark questions: prompts, candidates or options, and an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lavis.common.errors import RecordError

Kind = Literal["next_word", "choice", "generate"]
Scorer = Literal["released", "squad_v2", "quac"]
Gold = str | int | tuple[str, ...]


class ReadOptions(Protocol):
    """What readers use of the section `datasets.benchmark`."""

    @property
    def use_icl(self) -> bool: ...
    @property
    def protocol(self) -> Literal["released", "corrected"]: ...
    @property
    def unify_grey(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One question; a benchmark's questions are all of one kind.

    Attributes:
        question_id: the benchmark's own id, or one made of group and row.
        kind: `next_word` asks which candidate follows each prompt, `choice` which of the prompts
            is the likeliest text (one per option), `generate` for a continuation.
        prompts: texts as the language model gets them, demonstrations included.
        gold: `next_word`: the candidate; `choice`: its index; `generate`: accepted answers, none
            where the question cannot be answered.
        title: text shown to readers.
        image_text: what images shared by all prompts are made from.
        image_texts: the same for images of each prompt's own.
        group: a subset or a control, by which results are listed.
        options: `next_word`: candidates, most of them lower-case; `choice`: options as written.
        forms: candidates also count in capitals (`both`), or only as written (`given`).
        starts: `choice`: the first character of each prompt that an option-only likelihood reads.
        scorer: `generate`: whose rules compare the answer, see `tasks.questions.reading_metrics`.
        meta: more about the question, JSON-able, for its result row.
    """

    question_id: str
    kind: Kind
    prompts: tuple[str, ...]
    gold: Gold
    title: str
    image_text: str
    image_texts: tuple[str, ...]
    group: str = "all"
    options: tuple[str, ...] = ()
    forms: Literal["both", "given"] = "both"
    starts: tuple[int, ...] = ()
    scorer: Scorer = "released"
    meta: dict[str, Any] = field(default_factory=dict)
    index: int = -1


def list_of(record: dict[str, Any], name: str) -> list[Any]:
    """Return a non-empty list of a record; raises `RecordError` for anything else."""
    value = record.get(name)
    if not isinstance(value, list) or not value:
        raise RecordError(f"missing or empty list: {name}")
    return value
