"""BoolQ, SQuAD v2 and QuAC: questions about a passage that is shown."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lavis.common.errors import RecordError
from lavis.datasets.benchmarks.answer_text import (
    MIN_AGREEMENT,
    NO_ANSWER,
    agreement,
    quac_references,
)
from lavis.datasets.benchmarks.files import HUB, Benchmark, Record, Source, read_each
from lavis.datasets.benchmarks.question import Question, ReadOptions, Scorer, list_of
from lavis.datasets.files.json_values import text_of

INSTRUCTION = (
    "Answer each question using information in the preceding background paragraph. If there is "
    'not enough information provided, answer with "Not in background."'
)


def read_boolq(
    records: Sequence[Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    """Yield yes-no questions; all but the first letters are lower-cased, as released."""

    def question(fields: dict[str, Any], number: int) -> Question:
        passage, title = text_of(fields, "passage"), text_of(fields, "question")
        answer = fields.get("answer", fields.get("label"))
        if not isinstance(answer, (bool, int)) or answer not in (0, 1):
            raise RecordError(f"wrong answer: {answer!r:.60}, expected true or false")
        prompt = f"Context: {passage.capitalize()}. Question: {title.capitalize()}? Answer:"
        return Question(
            question_id=f"{source.group}-{number}",
            kind="next_word",
            prompts=(prompt,),
            gold="yes" if answer else "no",
            title=title,
            image_text=prompt,
            image_texts=(prompt,),
            group=source.group,
            options=("Yes", "No"),
            forms="given",
        )

    yield from read_each(records, question)


@dataclass(frozen=True, slots=True)
class _PassageQuestion:
    """A question of a passage.

    Attributes:
        article, passage: where its example may be from: the article as released, the passage
            corrected.
        heading: `Title: ...` lines.
        answers: accepted ones, none where the passage gives none.
        is_counted: false for a question that only serves as an example.
    """

    name: str
    article: str
    passage: str
    heading: str
    background: str
    question: str
    answers: tuple[str, ...]
    is_counted: bool = True


def read_squad(
    records: Sequence[Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    """Yield answerable questions but each article's first, its example; `corrected`: all."""
    yield from _questions(read_each(_squad_records(records), _squad), source, config)


def read_quac(
    records: Sequence[Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    """Yield answerable questions; released: of an article's introduction, one accepted answer.

    `corrected` follows QuAC's own scorer: it also asks questions that cannot be answered (half of
    the annotators found no answer), but none with too little agreement. It shows the passage that
    holds the answers, accepts every annotator's answer, and starts anew with each dialogue, whose
    first question has no example.
    """
    make = functools.partial(_quac_turn, corrected=config.protocol == "corrected")
    turns = (one for turn in _quac_turns(records) for one in make(turn))
    yield from _questions(turns, source, config)


def _questions(
    items: Iterator[_PassageQuestion | Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    corrected = config.protocol == "corrected"
    scorer: Scorer = "released"
    if corrected:
        scorer = "squad_v2" if source.group == "squad" else "quac"
    example: _PassageQuestion | None = None
    for item in items:
        if isinstance(item, Record):
            yield item
            continue
        if not item.answers and not corrected:
            continue
        if example is not None:
            same = item.passage == example.passage if corrected else item.article == example.article
            example = example if same else None
        if item.is_counted and (example is not None or corrected):
            yield _question(item, example, source, scorer)
        if item.answers:
            example = item


def _question(
    item: _PassageQuestion, example: _PassageQuestion | None, source: Source, scorer: Scorer
) -> Question:
    shown = f"Q: {example.question}\n\nA: {example.answers[0]}\n\n" if example is not None else ""
    prompt = (
        f"{INSTRUCTION}\n\n{item.heading}\n\nBackground: {item.background}\n\n"
        f"{shown}Q: {item.question}\n\nA:"
    )
    return Question(
        question_id=item.name,
        kind="generate",
        prompts=(prompt,),
        gold=item.answers,
        title=item.question,
        image_text=prompt,
        image_texts=(prompt,),
        group=source.group,
        scorer=scorer,
    )


def _squad_records(records: Sequence[Record]) -> Iterator[Record]:
    """Yield a record per question: of the hub's flat rows, or of articles as published."""
    for number, record in enumerate(records, 1):
        fields, name = record.fields, {"id": f"squad-{number}"}
        if fields is None:
            yield record
        elif "paragraphs" not in fields:
            yield replace(record, fields=name | fields)
        else:
            for paragraph in _parts(record, fields, "paragraphs"):
                outer = paragraph.fields
                if outer is None:
                    yield paragraph
                    continue
                shared = {"title": fields.get("title"), "context": outer.get("context")}
                for entry in _parts(record, outer, "qas"):
                    inner = entry.fields
                    yield entry if inner is None else replace(entry, fields=name | shared | inner)


def _squad(fields: dict[str, Any], number: int) -> _PassageQuestion:
    answers = fields.get("answers")
    if isinstance(answers, dict):
        texts = answers.get("text") or []
        if not isinstance(texts, list):
            raise RecordError(f"wrong type: answers is {type(texts).__name__}, expected a list")
        answers = [{"text": text} for text in texts]
    if not isinstance(answers, list):
        raise RecordError("missing field: answers")
    title, context = text_of(fields, "title"), text_of(fields, "context")
    impossible = fields.get("is_impossible")
    if impossible not in (None, False, True):  # the word "false" is true for Python
        raise RecordError(f"wrong is_impossible: {impossible!r:.60}, expected true or false")
    return _PassageQuestion(
        name=str(fields["id"]),
        article=title,
        passage=context,
        heading=f"Title: {title}",
        background=context,
        question=text_of(fields, "question"),
        answers=() if impossible else tuple(map(_answer, answers)),
    )


def _quac_turns(records: Sequence[Record]) -> Iterator[Record]:
    """Yield a record per turn: of the hub's dialogues, or of articles as published.

    Its fields, unchecked: `dialogue` (its name), `id`, `title`, `section`, `background`, `context`,
    `question`, `orig_answer` (of the dialogue) and `answers` (of all annotators).
    """
    for number, record in enumerate(records, 1):
        if record.fields is None:
            yield record
        else:
            turns = _published_turns if "paragraphs" in record.fields else _hub_turns
            yield from turns(record, record.fields, f"quac-{number}")


def _quac_turn(turn: Record, *, corrected: bool) -> Iterator[_PassageQuestion | Record]:
    """Yield a turn as a question, or a reject.

    A rejected turn still precedes the next one if its question and dialogue answer can be read,
    so that later turns show the same. Else the next one shows the last turn that can be asked, as
    after a turn without an answer.
    """
    fields = turn.fields
    if fields is None:
        yield turn
        return
    example: _PassageQuestion | None = None
    try:
        title, section = text_of(fields, "title"), text_of(fields, "section")
        background = text_of(fields, "context" if corrected else "background")
        if corrected:  # without the word that QuAC appends for unanswerable questions
            background = background.strip().removesuffix(NO_ANSWER).rstrip()
        own = fields["orig_answer"]
        is_answered = isinstance(own, str) and bool(own.strip()) and own != NO_ANSWER
        example = _PassageQuestion(
            name=fields["id"],
            article=title,
            passage=fields["dialogue"],
            heading=f"Title: {title}\nParagraph: {section}",
            background=background,
            question=text_of(fields, "question"),
            answers=(own,) if is_answered else (),
            is_counted=False,
        )
        if not corrected:
            text_of(fields, "orig_answer")
            yield replace(example, is_counted=True)
            return
        answers = quac_references([_answer(answer) for answer in list_of(fields, "answers")])
        is_counted = agreement(answers) >= MIN_AGREEMENT
        yield replace(example, answers=answers, is_counted=is_counted)
    except RecordError as error:
        yield turn.refused(error.reason)
        if example is not None:
            yield example


def _published_turns(record: Record, fields: dict[str, Any], name: str) -> Iterator[Record]:
    """Yield the turns of an article's section: paragraphs are its dialogues."""
    for number, paragraph in enumerate(_parts(record, fields, "paragraphs"), 1):
        outer = paragraph.fields
        if outer is None:
            yield paragraph
            continue
        dialogue = str(outer.get("id") or f"{name}-{number}")
        shared = {
            "dialogue": dialogue,
            "title": fields.get("title"),
            "section": fields.get("section_title"),
            "background": fields.get("background"),
            "context": outer.get("context"),
        }
        for place, entry in enumerate(_parts(record, outer, "qas")):
            inner = entry.fields
            if inner is None:
                yield entry
                continue
            own = inner.get("orig_answer")
            turn = {
                "id": str(inner.get("id") or f"{dialogue}_q#{place}"),
                "question": inner.get("question"),
                "orig_answer": own.get("text") if isinstance(own, dict) else own,
                "answers": inner.get("answers"),
            }
            yield replace(entry, fields=shared | turn)


def _hub_turns(record: Record, fields: dict[str, Any], name: str) -> Iterator[Record]:
    """Yield the turns of a row of the hub's table, a dialogue in columns."""
    dialogue = str(fields.get("dialogue_id") or name)
    columns: list[list[Any]] = []
    for key, inner in (("questions", None), ("orig_answers", "texts"), ("answers", "texts")):
        value = fields.get(key)
        value = value.get(inner) if inner and isinstance(value, dict) else value
        if not isinstance(value, list) or not value:
            yield record.refused(f"missing or empty list: {key}")
            return
        columns.append(value)
    if len({len(column) for column in columns}) > 1:  # which answer is whose is not known
        reason = "questions, answers and orig_answers differ in number"
        yield from (record.refused(reason) for _ in columns[0])
        return
    ids = fields.get("turn_ids")
    if not isinstance(ids, list) or len(ids) != len(columns[0]):
        ids = [f"{dialogue}_q#{place}" for place in range(len(columns[0]))]
    shared = {
        "dialogue": dialogue,
        "title": fields.get("wikipedia_page_title"),
        "section": fields.get("section_title"),
        "background": fields.get("background"),
        "context": fields.get("context"),
    }
    for turn_id, question, own, answers in zip(ids, *columns, strict=True):
        turn = {"id": str(turn_id), "question": question, "orig_answer": own, "answers": answers}
        yield replace(record, fields=shared | turn)


def _parts(record: Record, fields: dict[str, Any], name: str) -> Iterator[Record]:
    """Yield the objects of a list, which may be empty; a reject in place of anything else."""
    value = fields.get(name)
    if not isinstance(value, list):
        yield record.refused(f"missing field: {name}, a list")
        return
    for part in value:
        if isinstance(part, dict):
            yield replace(record, fields=part)
        else:
            kind = type(part).__name__
            yield record.refused(f"wrong type: an entry of {name} is {kind}, expected an object")


def _answer(answer: Any) -> str:
    """Return the text of an answer, which is a text or an object's."""
    return text_of(answer if isinstance(answer, dict) else {"text": answer}, "text")


def _source(group: str, names: tuple[str, ...], hub: str) -> tuple[Source, ...]:
    return (Source(group, (names[0], *HUB[:3], *names[1:]), (hub, None, "validation")),)


_BOOLQ = _source("boolq", ("dev.jsonl", "boolq*.jsonl"), "google/boolq")
_SQUAD = _source("squad", ("dev-v2.0.json", "squad*.json", "squad*.jsonl"), "rajpurkar/squad_v2")
_QUAC = _source("quac", ("val_v0.2.json", "quac*.json", "quac*.jsonl"), "quac")
BENCHMARKS = {
    "boolq": Benchmark(_BOOLQ, read_boolq, "next_word"),
    "squad": Benchmark(_SQUAD, read_squad, "generate"),
    "quac": Benchmark(_QUAC, read_quac, "generate"),
}
