"""BoolQ, SQuAD v2 and QuAC: questions about a passage that is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lavis.common.errors import RecordError, record_errors
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
            with record_errors():
                passage = text_of(record.fields, "passage")
                asked = text_of(record.fields, "question")
                answer = record.fields.get("answer", record.fields.get("label"))
                if not isinstance(answer, (bool, int)) or answer not in (0, 1):
                    raise RecordError(f"wrong answer: {answer!r:.60}, expected true or false")
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
            image_text=prompt,
            image_texts=(prompt,),
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
        image_text=prompt,
        image_texts=(prompt,),
        group=source.group,
        scorer=scorer,
    )


def _squad_asked(records: Sequence[Record]) -> Iterator[_Asked | Record]:
    """Read the hub's flat rows, or articles of paragraphs as published."""
    for number, record in enumerate(records):
        fields, name = record.fields, f"squad-{number + 1}"
        if fields is None or "paragraphs" not in fields:
            yield _squad_one(record, fields, name)
            continue
        for paragraph in _parts(fields, "paragraphs", record):
            if isinstance(paragraph, Record):
                yield paragraph
                continue
            for entry in _parts(paragraph, "qas", record):
                if isinstance(entry, Record):
                    yield entry
                    continue
                flat = {"title": fields.get("title"), "context": paragraph.get("context"), **entry}
                yield _squad_one(record, flat, name)


def _squad_one(record: Record, fields: dict[str, Any] | None, name: str) -> _Asked | Record:
    try:
        return _squad_asked_one(record, fields, name)
    except RecordError as error:
        return _bad(record, error)


@record_errors()
def _squad_asked_one(record: Record, fields: dict[str, Any] | None, name: str) -> _Asked:
    if fields is None:
        raise RecordError(record.reason)
    answers = fields.get("answers")
    if isinstance(answers, dict):
        answers = [{"text": text} for text in _plain_list(answers.get("text") or [], "answers")]
    if not isinstance(answers, list):
        raise RecordError("missing field: answers")
    title, context = text_of(fields, "title"), text_of(fields, "context")
    impossible = fields.get("is_impossible")
    if impossible not in (None, False, True):  # the word "false" is true for Python
        raise RecordError(f"wrong is_impossible: {impossible!r:.60}, expected true or false")
    accepted = () if impossible else tuple(map(_answer, answers))
    return _Asked(
        name=str(fields.get("id", name)),
        article=title,
        passage=context,
        heading=f"Title: {title}",
        background=context,
        question=text_of(fields, "question"),
        answers=accepted,
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """A question of a dialogue as its file holds it, unchecked.

    Attributes:
        dialogue: the name of its dialogue.
        name: its id.
        shared: title, section, background and context, which its dialogue's turns share.
        own: the answer in the dialogue.
        every: all annotators' answers.
    """

    dialogue: str
    name: str
    shared: dict[str, Any]
    question: Any
    own: Any
    every: Any


def _quac_asked(records: Sequence[Record], protocol: str) -> Iterator[_Asked | Record]:
    """Read the hub's dialogues, or articles of paragraphs as published."""
    for number, record in enumerate(records):
        if record.fields is None:
            yield _bad(record, RecordError(record.reason))
            continue
        published = "paragraphs" in record.fields
        turns = _published_turns if published else _hub_turns
        for turn in turns(record.fields, record, f"quac-{number + 1}"):
            if isinstance(turn, Record):
                yield turn
            else:
                yield from _quac_turn(turn, record, corrected=protocol == "corrected")


def _quac_turn(turn: _Turn, record: Record, *, corrected: bool) -> Iterator[_Asked | Record]:
    """Yield a turn as a question, or why it cannot be asked.

    A turn that cannot be asked still stands before the next one where its question and the answer
    it got in the dialogue can be read: what later turns are shown does not change. Else the next
    one is shown the last turn that can, as after a turn without an answer.
    """
    shown: _Asked | None = None
    try:
        title, section = text_of(turn.shared, "title"), text_of(turn.shared, "section")
        background = text_of(turn.shared, "context" if corrected else "background")
        question = text_of({"question": turn.question}, "question")
        fields: dict[str, Any] = {
            "name": turn.name,
            "article": title,
            "passage": turn.dialogue,
            "heading": f"Title: {title}\nParagraph: {section}",
            "background": _without_mark(background) if corrected else background,
            "question": question,
        }
        own: tuple[str, ...] = ()
        if isinstance(turn.own, str) and turn.own.strip() and turn.own != NO_ANSWER:
            own = (turn.own,)
        shown = _Asked(**fields, answers=own, asked=False)
        if not corrected:
            answer = text_of({"orig_answer": turn.own}, "orig_answer")
            yield _Asked(**fields, answers=() if answer == NO_ANSWER else (answer,))
            return
        every = [_answer(one) for one in list_of({"answers": turn.every}, "answers")]
        accepted = quac_references(every)
        asked = agreement(accepted) >= MIN_AGREEMENT
        yield _Asked(**fields, answers=accepted, asked=asked)
    except RecordError as error:
        yield _bad(record, error)
        if shown is not None:
            yield shown


def _published_turns(fields: dict[str, Any], record: Record, name: str) -> Iterator[_Turn | Record]:
    """Yield the turns of an article's section: paragraphs are its dialogues."""
    for number, paragraph in enumerate(_parts(fields, "paragraphs", record)):
        if isinstance(paragraph, Record):
            yield paragraph
            continue
        dialogue = str(paragraph.get("id") or f"{name}-{number + 1}")
        shared = {
            "title": fields.get("title"),
            "section": fields.get("section_title"),
            "background": fields.get("background"),
            "context": paragraph.get("context"),
        }
        for place, entry in enumerate(_parts(paragraph, "qas", record)):
            if isinstance(entry, Record):
                yield entry
                continue
            own = entry.get("orig_answer")
            yield _Turn(
                dialogue=dialogue,
                name=str(entry.get("id") or f"{dialogue}_q#{place}"),
                shared=shared,
                question=entry.get("question"),
                own=own.get("text") if isinstance(own, dict) else own,
                every=entry.get("answers"),
            )


def _hub_turns(fields: dict[str, Any], record: Record, name: str) -> Iterator[_Turn | Record]:
    """Yield the turns of a row of the hub's table, a dialogue in columns."""
    dialogue = str(fields.get("dialogue_id") or name)
    columns: list[list[Any]] = []
    for key, inner in (("questions", None), ("orig_answers", "texts"), ("answers", "texts")):
        value = fields.get(key)
        value = value.get(inner) if inner and isinstance(value, dict) else value
        if not isinstance(value, list) or not value:
            yield _bad(record, RecordError(f"missing or empty list: {key}"))
            return
        columns.append(value)
    if len({len(column) for column in columns}) > 1:  # whose answer is whose, nobody can tell
        reason = RecordError("questions, answers and orig_answers differ in number")
        yield from (_bad(record, reason) for _ in columns[0])
        return
    ids = fields.get("turn_ids")
    known = isinstance(ids, list) and len(ids) == len(columns[0])
    shared = {
        "title": fields.get("wikipedia_page_title"),
        "section": fields.get("section_title"),
        "background": fields.get("background"),
        "context": fields.get("context"),
    }
    for place, (question, own, every) in enumerate(zip(*columns, strict=True)):
        turn = str(ids[place]) if known and ids is not None else f"{dialogue}_q#{place}"
        yield _Turn(dialogue, turn, shared, question, own, every)


def _parts(fields: dict[str, Any], name: str, record: Record) -> Iterator[dict[str, Any] | Record]:
    """Yield the objects of a list, which may be empty; in place of what is none, why."""
    value = fields.get(name)
    if not isinstance(value, list):
        yield _bad(record, RecordError(f"missing field: {name}, a list"))
        return
    for part in value:
        if isinstance(part, dict):
            yield part
        else:
            reason = f"wrong type: an entry of {name} is {type(part).__name__}, expected an object"
            yield _bad(record, RecordError(reason))


def _answer(answer: Any) -> str:
    """Return the text of an answer, which may stand alone or in an object."""
    return text_of(answer if isinstance(answer, dict) else {"text": answer}, "text")


def _plain_list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(f"wrong type: {name} is {type(value).__name__}, expected a list")
    return value


def _bad(record: Record, error: RecordError) -> Record:
    return Record(None, record.file, record.line, error.reason)


def _without_mark(context: str) -> str:
    """Return a passage without the word that QuAC appends for unanswerable questions."""
    return context.strip().removesuffix(NO_ANSWER).rstrip()
