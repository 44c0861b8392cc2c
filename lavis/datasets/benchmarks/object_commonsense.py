"""Colour, shape and size of everyday objects: Memory Color, Color Terms, Object Shape, Relative
Size (as collected by VaLM) and ViComTe.

Prompts are those of VaLM's zero-shot script; shape has none there and gets colour's with "shape".
Candidates are the labels that occur in the file. All gold answers about size are "yes", so each
pair is also asked the other way round, as the group `swapped`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.errors import RecordError, record_errors
from lavis.datasets.benchmarks.files import Record, Source
from lavis.datasets.benchmarks.question import Question, text_of

if TYPE_CHECKING:
    from lavis.datasets.benchmarks.config import BenchmarkConfig

_ATTRIBUTE = (
    "Q: What is the {kind} of {item}? A: It is",
    "What is the {kind} of {item}? It is",
    "What is the usual {kind} of {item}?",
    "What is the typical {kind} of {item}?",
    "The {kind} of {item} is",
    "The usual {kind} of {item} is",
    "The common {kind} of {item} is",
    "The typical {kind} of {item} is",
    "{item} usually has the {kind} of",
)
_SIZE = (
    "Is {a} bigger than {b}?",
    "Is {a} larger than {b}?",
    "Is {a} taller than {b}?",
    "{a} is bigger than {b}, is it true?",
    "{a} is larger than {b}, is it true?",
    "{a} is taller than {b}, is it true?",
)
_ITEM = ("Item", "object", "sub")  # Memory Color and shape, Color Terms, ViComTe
_LABEL = ("Shape", "color", "obj")  # Memory Color's colour is in the column Shape

MEMORY_COLOR = (Source("memory_color", ("memory_color_data.csv",)),)
COLOR_TERMS = (Source("color_terms", ("color-concrete-objects.csv",)),)
OBJECT_SHAPE = (Source("object_shape", ("shape.csv",)),)
RELATIVE_SIZE = (Source("relative_size", ("size.csv", "sizePairsFull.txt")),)
VICOMTE_COLOR = (Source("vicomte_color", ("color.jsonl",)),)
VICOMTE_SHAPE = (Source("vicomte_shape", ("shape.jsonl",)),)
VICOMTE_SIZE = (
    Source("vicomte_larger", ("larger.jsonl",)),
    Source("vicomte_smaller", ("smaller.jsonl",)),
)


def read_color(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield a question of nine prompts for each object."""
    yield from _read_attribute(records, source, "color", config.unify_grey)


def read_shape(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield a question of nine prompts for each object."""
    yield from _read_attribute(records, source, "shape", config.unify_grey)


def _read_attribute(
    records: Sequence[Record], source: Source, kind: str, unify_grey: bool
) -> Iterator[Question | Record]:
    found = [_attribute(record, unify_grey) for record in records]
    labels = tuple(
        dict.fromkeys(label for one in found if isinstance(one, tuple) for label in one[1:])
    )
    for number, one in enumerate(found):
        if isinstance(one, Record):
            yield one
            continue
        item, label = one
        prompts = tuple(prompt.format(kind=kind, item=item) for prompt in _ATTRIBUTE)
        yield Question(
            question_id=f"{source.group}-{number + 1}",
            kind="next_word",
            prompts=prompts,
            gold=label,
            title=prompts[2],
            image_text=item,
            image_texts=prompts,
            group=source.group,
            options=labels,
            meta={"category": item},
        )


def _attribute(record: Record, unify_grey: bool) -> tuple[str, str] | Record:
    """Return object and label; an empty descriptor is left out."""
    try:
        if record.fields is None:
            raise RecordError(record.reason)
        with record_errors():
            item = text_of(record.fields, _first(record.fields, _ITEM))
            label = text_of(record.fields, _first(record.fields, _LABEL)).lower()
    except RecordError as error:
        return Record(None, record.file, record.line, error.reason)
    if unify_grey and label == "grey":
        label = "gray"
    return f"{record.fields.get('Descriptor') or ''} {item}".strip(), label


def _first(fields: dict[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in fields), names[0])


def read_size(
    records: Sequence[Record], source: Source, config: BenchmarkConfig
) -> Iterator[Question | Record]:
    """Yield each pair's question (answer yes), then all of them the other way round (no)."""
    pairs: list[tuple[int, str, str]] = []
    for number, record in enumerate(records):
        try:
            if record.fields is None:
                raise RecordError(record.reason)
            with record_errors():
                larger, smaller = _pair(record.fields, source.group)
        except RecordError as error:
            yield Record(None, record.file, record.line, error.reason)
        else:
            pairs.append((number, larger, smaller))
    for swapped in (False, True):
        for number, larger, smaller in pairs:
            a, b = (smaller, larger) if swapped else (larger, smaller)
            prompts = tuple(prompt.format(a=a, b=b) for prompt in _SIZE)
            group = f"{source.group}_swapped" if swapped else source.group
            yield Question(
                question_id=f"{group}-{number + 1}",
                kind="next_word",
                prompts=prompts,
                gold="no" if swapped else "yes",
                title=prompts[0],
                image_text=f"{larger} and {smaller}",
                image_texts=prompts,
                group=group,
                options=("yes", "no"),
                meta={"larger": larger, "smaller": smaller},
            )


def _pair(fields: dict[str, Any], group: str) -> tuple[str, str]:
    """Return the larger object and the smaller one."""
    if "line" in fields:  # sizePairsFull.txt: article item article item
        words = fields["line"].split()
        if len(words) != 4:
            raise RecordError(f"malformed line: {len(words)} words, expected 4")
        return " ".join(words[:2]), " ".join(words[2:])
    if "sub" in fields:
        first, second = text_of(fields, "sub"), text_of(fields, "obj")
        return (second, first) if group.endswith("smaller") else (first, second)
    if fields.get("Label") != "yes":
        raise RecordError(f"Label is {fields.get('Label')!r}; every published one is 'yes'")
    first, second = text_of(fields, "Item1"), text_of(fields, "Item2")
    return (
        f"{fields.get('Descriptor1') or ''} {first}".strip(),
        f"{fields.get('Descriptor2') or ''} {second}".strip(),
    )
