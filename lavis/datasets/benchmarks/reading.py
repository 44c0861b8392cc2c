"""BoolQ, SQuAD v2 and QuAC: questions about a passage that is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lavis.common.errors import RecordError
from lavis.datasets.benchmarks.answer_text import (
    MIN_AGREEMENT,
    NO_ANSWER,
    agreement,
    quac_references,
)
from lavis.datasets.benchmarks.files import Record, Source
from lavis.datasets.benchmarks.question import Question, Scorer, list_of, text_of

if TYPE_CHECKING:
    from lavis.datasets.benchmarks.config import BenchmarkConfig

_HUB = ("validation*.parquet", "validation*.jsonl", "validation*.json")
BOOLQ = (
    Source("boolq", ("dev.jsonl", *_HUB, "boolq*.jsonl"), ("google/boolq", None, "validation")),
)
SQUAD = (
    Source(
        "squad",
        ("dev-v2.0.json", *_HUB, "squad*.json", "squad*.jsonl"),
        ("rajpurkar/squad_v2", None, "validation"),
    ),
)
QUAC = (
    Source(
        "quac", ("val_v0.2.json", *_HUB, "quac*.json", "quac*.jsonl"), ("quac", None, "validation")
    ),
)

INSTRUCTION = (
    "Answer each question using information in the preceding background paragraph. If there is "
    'not enough information provided, answer with "Not in background."'
)


def read_boolq(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield yes-no questions; all but the first letters are lower-cased, as released."""
    for number, record in enumerate(records):
        try:
            if record.fields is None:
                raise RecordError(record.reason)
            passage, asked = text_of(record.fields, "passage"), text_of(record.fields, "question")
            answer = record.fields.get("answer", record.fields.get("label"))
            if not isinstance(answer, (bool, int)) or answer not in (0, 1):
                raise RecordError(f"wrong answer: {answer!r}, expected true or false")
        except RecordError as error:
            yield Record(None, record.file, record.line, error.reason)
            continue
        prompt = f"Context: {passage.capitalize()}. Question: {asked.capitalize()}? Answer:"
        yield Question(
            question_id=f"{source.group}-{number + 1}",
            kind="next_word",
            prompts=(prompt,),
            gold="yes" if answer else "no",
            title=asked,
            picture_text=prompt,
            picture_texts=(prompt,),
            group=source.group,
            options=("Yes", "No"),
            forms="given",
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question of a passage.

    Attributes:
        place: what an example may be taken from: `article` as released, `passage` corrected.
        heading: `Title: ...` lines.
        answers: accepted ones, none where the passage gives none.
        asked: false for a question that only stands as an example.
    """

    name: str
    article: str
    passage: str
    heading: str
    background: str
    question: str
    answers: tuple[str, ...]
    asked: bool = True


def read_squad(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield answerable questions but each article's first, its example; `corrected`: all."""
    yield from _questions(_squad_asked(records), source, config)


def read_quac(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield answerable questions; released: of an article's introduction, one accepted answer.

    `corrected` asks what QuAC's own scorer counts: questions that cannot be answered too (half of
    the annotators found no answer), but none whose annotators agree too little. It shows the
    passage that holds the answers, accepts every annotator's answer, and starts anew with each
    dialogue, whose first question has no example.
    """
    yield from _questions(_quac_asked(records, config.protocol), source, config)


def _questions(
    asked: Iterator[_Asked | Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    corrected = config.protocol == "corrected"
    scorer: Scorer = "released"
    if corrected:
        scorer = "squad_v2" if source.group == "squad" else "quac"
    example: _Asked | None = None
    for one in asked:
        if isinstance(one, Record):
            yield one
            continue
        if not one.answers and not corrected:
            continue
        if example is not None:
            same = one.passage == example.passage if corrected else one.article == example.article
            example = example if same else None
        if one.asked and (example is not None or corrected):
            yield _question(one, example, source, scorer)
        if one.answers:
            example = one


def _question(asked: _Asked, example: _Asked | None, source: Source, scorer: Scorer) -> Question:
    shown = f"Q: {example.question}\n\nA: {example.answers[0]}\n\n" if example is not None else ""
    prompt = (
        f"{INSTRUCTION}\n\n{asked.heading}\n\nBackground: {asked.background}\n\n"
        f"{shown}Q: {asked.question}\n\nA:"
    )
    return Question(
        question_id=asked.name,
        kind="generate",
        prompts=(prompt,),
        gold=asked.answers,
        title=asked.question,
        picture_text=prompt,
        picture_texts=(prompt,),
        group=source.group,
        scorer=scorer,
    )


def _squad_asked(records: Sequence[Record]) -> Iterator[_Asked | Record]:
    """Read the hub's flat rows, or articles of paragraphs as published."""
    for number, record in enumerate(records):
        fields = record.fields
        if fields is None or "paragraphs" not in fields:
            yield _squad_one(record, fields, f"squad-{number + 1}")
            continue
        for paragraph in fields["paragraphs"]:
            for entry in paragraph.get("qas", []):
                flat = {"title": fields.get("title"), "context": paragraph.get("context"), **entry}
                yield _squad_one(record, flat, f"squad-{number + 1}")


def _squad_one(record: Record, fields: dict[str, Any] | None, name: str) -> _Asked | Record:
    try:
        if fields is None:
            raise RecordError(record.reason)
        answers = fields.get("answers")
        if isinstance(answers, dict):
            answers = [{"text": text} for text in answers.get("text") or []]
        if not isinstance(answers, list):
            raise RecordError("missing field: answers")
        title, context = text_of(fields, "title"), text_of(fields, "context")
        accepted = () if fields.get("is_impossible") else tuple(text_of(a, "text") for a in answers)
        return _Asked(
            name=str(fields.get("id", name)),
            article=title,
            passage=context,
            heading=f"Title: {title}",
            background=context,
            question=text_of(fields, "question"),
            answers=accepted,
        )
    except RecordError as error:
        return Record(None, record.file, record.line, error.reason)


def _quac_asked(records: Sequence[Record], protocol: str) -> Iterator[_Asked | Record]:
    """Read the hub's dialogues, or articles of paragraphs as published."""
    for record in records:
        try:
            if record.fields is None:
                raise RecordError(record.reason)
            for dialogue in _dialogues(record.fields):
                yield from _turns(dialogue, protocol)
        except RecordError as error:
            yield Record(None, record.file, record.line, error.reason)


@dataclass(frozen=True, slots=True)
class _Dialogue:
    name: str
    title: str
    section: str
    background: str
    context: str
    turns: list[tuple[str, str, str, tuple[str, ...]]]  # id, question, answer, all answers


def _turns(dialogue: _Dialogue, protocol: str) -> Iterator[_Asked]:
    corrected = protocol == "corrected"
    for name, question, answer, answers in dialogue.turns:
        released = () if answer == NO_ANSWER else (answer,)
        accepted = quac_references(answers) if corrected else released
        yield _Asked(
            name=name,
            article=dialogue.title,
            passage=dialogue.name,
            heading=f"Title: {dialogue.title}\nParagraph: {dialogue.section}",
            background=dialogue.context if corrected else dialogue.background,
            question=question,
            answers=accepted,
            asked=not corrected or agreement(accepted) >= MIN_AGREEMENT,
        )


def _dialogues(fields: dict[str, Any]) -> Iterator[_Dialogue]:
    if "paragraphs" in fields:  # as published: an article's section and its dialogues
        for paragraph in list_of(fields, "paragraphs"):
            turns = []
            for entry in list_of(paragraph, "qas"):
                own = text_of(entry.get("orig_answer") or {}, "text")
                every = tuple(text_of(a, "text") for a in list_of(entry, "answers"))
                turns.append((text_of(entry, "id"), text_of(entry, "question"), own, every))
            yield _Dialogue(
                name=text_of(paragraph, "id"),
                title=text_of(fields, "title"),
                section=text_of(fields, "section_title"),
                background=text_of(fields, "background"),
                context=_without_mark(text_of(paragraph, "context")),
                turns=turns,
            )
        return
    name = text_of(fields, "dialogue_id")
    owns = list_of(fields.get("orig_answers") or {}, "texts")
    everyone = list_of(fields.get("answers") or {}, "texts")
    questions = list_of(fields, "questions")
    if not len(owns) == len(everyone) == len(questions):
        raise RecordError("questions, answers and orig_answers differ in number")
    ids = fields.get("turn_ids") or [f"{name}_q#{n}" for n in range(len(questions))]
    rows = zip(ids, questions, owns, everyone, strict=True)
    yield _Dialogue(
        name=name,
        title=text_of(fields, "wikipedia_page_title"),
        section=text_of(fields, "section_title"),
        background=text_of(fields, "background"),
        context=_without_mark(text_of(fields, "context")),
        turns=[(str(i), str(q), str(o), tuple(map(str, e))) for i, q, o, e in rows],
    )


def _without_mark(context: str) -> str:
    """Return a passage without the word that QuAC appends for unanswerable questions."""
    return context.strip().removesuffix(NO_ANSWER).rstrip()
