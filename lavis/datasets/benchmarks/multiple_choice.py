"""PIQA, SIQA, HellaSwag, WinoGrande, ARC, OpenBookQA and CommonsenseQA: which text is likeliest.

A prompt is the context, one space, and an option. Records are read as their authors publish them
and as the Hugging Face hub holds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.errors import REFUSALS, RecordError, record_errors
from lavis.datasets.benchmarks.files import Record, Source
from lavis.datasets.benchmarks.question import Question, list_of, text_of

if TYPE_CHECKING:
    from lavis.datasets.benchmarks.config import BenchmarkConfig

_HUB = ("validation*.parquet", "validation*.jsonl", "validation*.json", "validation*.csv")
_HUB_TEST = ("test*.parquet", "test*.jsonl", "test*.json", "test*.csv")

PIQA = (Source("piqa", ("valid.jsonl", *_HUB, "piqa*.jsonl"), ("piqa", None, "validation")),)
SIQA = (
    Source("siqa", ("dev.jsonl", *_HUB, "siqa*.jsonl"), ("lighteval/siqa", None, "validation")),
)
HELLASWAG = (
    Source(
        "hellaswag",
        ("hellaswag_val.jsonl", *_HUB, "hellaswag*.jsonl"),
        ("Rowan/hellaswag", None, "validation"),
    ),
)
WINOGRANDE = (
    Source(
        "winogrande",
        ("dev.jsonl", *_HUB, "winogrande*.jsonl"),
        ("winogrande", "winogrande_xs", "validation"),
    ),
)


def _arc(name: str) -> Source:
    group = {"Easy": "arc_easy", "Challenge": "arc_challenge"}[name]
    local = [f"ARC-{name}/{pattern}" for pattern in _HUB_TEST]
    published = (f"ARC-{name}-Test.jsonl", *local, f"{group}*.jsonl")
    return Source(group, published, ("ai2_arc", f"ARC-{name}", "test"))


ARC_EASY = (_arc("Easy"),)
ARC_CHALLENGE = (_arc("Challenge"),)
ARC = ARC_EASY + ARC_CHALLENGE
OBQA = (
    Source(
        "obqa",
        ("Main/test.jsonl", *_HUB_TEST, "obqa*.jsonl"),
        ("allenai/openbookqa", "main", "test"),
    ),
)
CQA = (
    Source(
        "cqa",
        ("dev_rand_split.jsonl", *_HUB, "cqa*.jsonl"),
        ("tau/commonsense_qa", None, "validation"),
    ),
)

Parts = tuple[str, list[str], int]  # context, options, place of the right one
Reader = Callable[[Sequence[Record], Source, "BenchmarkConfig"], Iterator[Question | Record]]


def _reader(parts: Callable[[dict[str, Any]], Parts]) -> Reader:
    """Return a reader of records whose options follow their context."""

    def read(
        records: Sequence[Record], source: Source, config: BenchmarkConfig
    ) -> Iterator[Question | Record]:
        for number, record in enumerate(records):
            try:
                if record.fields is None:
                    raise RecordError(record.reason)
                with record_errors():
                    context, options, gold = parts(record.fields)
                    name = question_name(record.fields, source.group, number)
                    question = _question(name, source.group, context, options, gold)
            except RecordError as error:
                yield Record(None, record.file, record.line, error.reason)
            else:
                yield question

    return read


def question_name(fields: dict[str, Any], group: str, number: int) -> str:
    """Return a record's own id, or one made of group and row."""
    for key in ("id", "qID", "ind"):
        if fields.get(key) not in (None, ""):
            return str(fields[key])
    return f"{group}-{number + 1}"


def _question(name: str, group: str, context: str, options: list[str], gold: int) -> Question:
    texts = tuple(f"{context} {option}" for option in options)
    return Question(
        question_id=name,
        kind="choice",
        prompts=texts,
        gold=_within(gold, options),
        title=context,
        image_text=context,
        image_texts=texts,
        group=group,
        options=tuple(options),
        starts=(len(context),) * len(options),
    )


def _within(gold: int, options: Sequence[str]) -> int:
    if not 0 <= gold < len(options):
        raise RecordError(f"label out of range: option {gold + 1} of {len(options)}")
    return gold


def _number(value: Any, first: int) -> int:
    """Return the place of a label that counts from `first`."""
    try:
        return int(value) - first
    except REFUSALS:
        raise RecordError(f"wrong label: {value!r:.60}") from None


def _letter(value: Any, labels: Sequence[str]) -> int:
    """Return the place of an answer key, a letter or a digit from 1."""
    key = str(value).strip()
    if key in labels:
        return list(labels).index(key)
    if re.fullmatch("[A-Z]", key):
        return ord(key) - ord("A")
    return _number(key, 1)


def _piqa(record: dict[str, Any]) -> Parts:
    options = [text_of(record, "sol1"), text_of(record, "sol2")]
    return text_of(record, "goal"), options, _number(record.get("label"), 0)


def _siqa(record: dict[str, Any]) -> Parts:
    context = f"{text_of(record, 'context')} {text_of(record, 'question')}"
    options = [text_of(record, f"answer{letter}") for letter in "ABC"]
    return context, options, _letter(record.get("label"), ())


def _hellaswag(record: dict[str, Any]) -> Parts:
    options = [str(ending) for ending in list_of(record, "endings")]
    return text_of(record, "ctx"), options, _number(record.get("label"), 0)


def _with_choices(record: dict[str, Any]) -> Parts:
    """Read ARC, OpenBookQA and CommonsenseQA: choices beside the question (hub) or inside it."""
    inner = record.get("question")
    if isinstance(inner, dict):
        question, choices = text_of(inner, "stem"), inner.get("choices")
    else:
        question = text_of(record, "question_stem" if "question_stem" in record else "question")
        choices = record.get("choices")
    if isinstance(choices, dict):
        texts, labels = list_of(choices, "text"), list_of(choices, "label")
    elif isinstance(choices, list) and choices and all(isinstance(c, dict) for c in choices):
        texts, labels = [text_of(c, "text") for c in choices], [c.get("label") for c in choices]
    else:
        raise RecordError("missing or empty list: choices")
    options = [str(text) for text in texts]
    return question, options, _letter(record.get("answerKey"), [str(label) for label in labels])


read_piqa = _reader(_piqa)
read_siqa = _reader(_siqa)
read_hellaswag = _reader(_hellaswag)
read_choices = _reader(_with_choices)


def read_winogrande(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield each sentence with both fillers; option-only likelihood reads what follows the blank.

    Scoring the words after the filler is the partial scoring of Trinh and Le (2018); the filler's
    own likelihood says how common the word is.
    """
    for number, record in enumerate(records):
        try:
            if record.fields is None:
                raise RecordError(record.reason)
            with record_errors():
                sentence = text_of(record.fields, "sentence")
                if "_" not in sentence:
                    raise RecordError("sentence has no blank '_'")
                options = (text_of(record.fields, "option1"), text_of(record.fields, "option2"))
                before, _, after = sentence.partition("_")
                starts = tuple(len(before) + len(option) for option in options)
                if not after.strip(" ."):
                    starts = (len(before.rstrip()),) * 2  # nothing follows: the filler itself
                gold = _within(_number(record.fields.get("answer"), 1), options)
        except RecordError as error:
            yield Record(None, record.file, record.line, error.reason)
            continue
        texts = tuple(sentence.replace("_", option) for option in options)
        yield Question(
            question_id=question_name(record.fields, source.group, number),
            kind="choice",
            prompts=texts,
            gold=gold,
            title=sentence,
            image_text=sentence.replace("_", " or ".join(options)),
            image_texts=texts,
            group=source.group,
            options=options,
            starts=starts,
        )
