"""PIQA, SIQA, HellaSwag, WinoGrande, ARC, OpenBookQA and CommonsenseQA: which text is likeliest.

A prompt is the context, one space, and an option. Records are read as published by their authors
and by the Hugging Face hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lavis.common.errors import REFUSALS, RecordError
from lavis.datasets.benchmarks.files import HUB, Benchmark, Reader, Record, Source, read_each
from lavis.datasets.benchmarks.question import Question, ReadOptions, list_of
from lavis.datasets.files.json_values import text_of

Parts = tuple[str, list[str], int]  # context, options, place of the right one


def _reader(parts: Callable[[dict[str, Any]], Parts]) -> Reader:
    """Return a reader of records whose options follow their context."""

    def read(
        records: Sequence[Record], source: Source, config: ReadOptions
    ) -> Iterator[Question | Record]:
        def question(fields: dict[str, Any], number: int) -> Question:
            context, options, gold = parts(fields)
            texts = tuple(f"{context} {option}" for option in options)
            return Question(
                question_id=question_name(fields, source.group, number),
                kind="choice",
                prompts=texts,
                gold=_within(gold, options),
                title=context,
                image_text=context,
                image_texts=texts,
                group=source.group,
                options=tuple(options),
                starts=(len(context),) * len(options),
            )

        yield from read_each(records, question)

    return read


def question_name(fields: dict[str, Any], group: str, number: int) -> str:
    """Return a record's own id, or one made of group and row."""
    for key in ("id", "qID", "ind"):
        if fields.get(key) not in (None, ""):
            return str(fields[key])
    return f"{group}-{number}"


def _within(gold: int, options: Sequence[str]) -> int:
    if not 0 <= gold < len(options):
        raise RecordError(f"label out of range: option {gold + 1} of {len(options)}")
    return gold


def _number(value: Any, first: int) -> int:
    """Return the index, from 0, of a label that counts from `first`."""
    try:
        return int(value) - first
    except REFUSALS:
        raise RecordError(f"wrong label: {value!r:.60}") from None


def _letter(value: Any, labels: Sequence[str]) -> int:
    """Return the index of an answer key, a letter or a digit from 1."""
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


def read_winogrande(
    records: Sequence[Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    """Yield each sentence with both fillers; option-only likelihood reads what follows the blank.

    Scoring the words after the filler is the partial scoring of Trinh and Le (2018); the filler's
    own likelihood says how common the word is.
    """

    def question(fields: dict[str, Any], number: int) -> Question:
        sentence = text_of(fields, "sentence")
        if "_" not in sentence:
            raise RecordError("sentence has no blank '_'")
        options = (text_of(fields, "option1"), text_of(fields, "option2"))
        before, _, after = sentence.partition("_")
        starts = tuple(len(before) + len(option) for option in options)
        if not after.strip(" ."):
            starts = (len(before.rstrip()),) * 2  # nothing follows: the filler itself
        texts = tuple(sentence.replace("_", option) for option in options)
        return Question(
            question_id=question_name(fields, source.group, number),
            kind="choice",
            prompts=texts,
            gold=_within(_number(fields.get("answer"), 1), options),
            title=sentence,
            image_text=sentence.replace("_", " or ".join(options)),
            image_texts=texts,
            group=source.group,
            options=options,
            starts=starts,
        )

    yield from read_each(records, question)


def _source(group: str, first: str, hub: tuple[str, str | None, str]) -> Source:
    """Return a source by the name of its published file, or of the hub's exported table."""
    tables = [pattern.replace("validation", hub[2]) for pattern in HUB]
    return Source(group, (first, *tables, f"{group}*.jsonl"), hub)


def _arc(name: str) -> Source:
    group = f"arc_{name.lower()}"
    tables = [f"ARC-{name}/{pattern.replace('validation', 'test')}" for pattern in HUB]
    names = (f"ARC-{name}-Test.jsonl", *tables, f"{group}*.jsonl")
    return Source(group, names, ("ai2_arc", f"ARC-{name}", "test"))


_READERS: dict[str, tuple[Reader, Source]] = {
    "piqa": (_reader(_piqa), _source("piqa", "valid.jsonl", ("piqa", None, "validation"))),
    "siqa": (_reader(_siqa), _source("siqa", "dev.jsonl", ("lighteval/siqa", None, "validation"))),
    "hellaswag": (
        _reader(_hellaswag),
        _source("hellaswag", "hellaswag_val.jsonl", ("Rowan/hellaswag", None, "validation")),
    ),
    "winogrande": (
        read_winogrande,
        _source("winogrande", "dev.jsonl", ("winogrande", "winogrande_xs", "validation")),
    ),
    "arc_easy": (_reader(_with_choices), _arc("Easy")),
    "arc_challenge": (_reader(_with_choices), _arc("Challenge")),
    "obqa": (
        _reader(_with_choices),
        _source("obqa", "Main/test.jsonl", ("allenai/openbookqa", "main", "test")),
    ),
    "cqa": (
        _reader(_with_choices),
        _source("cqa", "dev_rand_split.jsonl", ("tau/commonsense_qa", None, "validation")),
    ),
}
BENCHMARKS = {name: Benchmark((one,), read, "choice") for name, (read, one) in _READERS.items()}
BENCHMARKS["arc"] = Benchmark((_arc("Easy"), _arc("Challenge")), _reader(_with_choices), "choice")
