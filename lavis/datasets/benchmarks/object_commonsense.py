"""Colour, shape and size of everyday objects: Memory Color, Color Terms, Object Shape, Relative
Size (as collected by VaLM) and ViComTe.

Prompts are those of VaLM's zero-shot script; shape has none there and gets colour's with "shape".
Candidates are the labels that occur in the file. All gold answers about size are "yes", so each
pair is also asked in reverse, as the group `swapped`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from lavis.common.errors import RecordError
from lavis.datasets.benchmarks.files import Benchmark, Reader, Record, Source, read_each
from lavis.datasets.benchmarks.question import Question, ReadOptions
from lavis.datasets.files.json_values import text_of

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


def _attribute_reader(kind: str) -> Reader:
    """Return a reader that makes a question of nine prompts for each object."""

    def read(
        records: Sequence[Record], source: Source, config: ReadOptions
    ) -> Iterator[Question | Record]:
        pairs = list(read_each(records, functools.partial(_attribute, unify=config.unify_grey)))
        labels = tuple(dict.fromkeys(pair[1] for pair in pairs if isinstance(pair, tuple)))
        for number, pair in enumerate(pairs, 1):
            if isinstance(pair, Record):
                yield pair
                continue
            item, label = pair
            prompts = tuple(prompt.format(kind=kind, item=item) for prompt in _ATTRIBUTE)
            yield Question(
                question_id=f"{source.group}-{number}",
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

    return read


def _attribute(fields: dict[str, Any], number: int, *, unify: bool) -> tuple[str, str]:
    """Return object and label; an empty descriptor is left out."""
    item = text_of(fields, _first(fields, _ITEM))
    label = text_of(fields, _first(fields, _LABEL)).lower()
    label = "gray" if unify and label == "grey" else label
    return f"{fields.get('Descriptor') or ''} {item}".strip(), label


def _first(fields: dict[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in fields), names[0])


def read_size(
    records: Sequence[Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    """Yield each pair's question (answer yes), then all of them in reverse (no)."""
    pairs: list[tuple[int, str, str]] = []
    for pair in read_each(records, functools.partial(_pair, source.group)):
        if isinstance(pair, Record):
            yield pair
        else:
            pairs.append(pair)
    for swapped in (False, True):
        for number, larger, smaller in pairs:
            a, b = (smaller, larger) if swapped else (larger, smaller)
            prompts = tuple(prompt.format(a=a, b=b) for prompt in _SIZE)
            group = f"{source.group}_swapped" if swapped else source.group
            yield Question(
                question_id=f"{group}-{number}",
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


def _pair(group: str, fields: dict[str, Any], number: int) -> tuple[int, str, str]:
    """Return the record's number, the larger object and the smaller one."""
    if "line" in fields:  # sizePairsFull.txt: article item article item
        words = fields["line"].split()
        if len(words) != 4:
            raise RecordError(f"malformed line: {len(words)} words, expected 4")
        return number, " ".join(words[:2]), " ".join(words[2:])
    if "sub" in fields:
        first, second = text_of(fields, "sub"), text_of(fields, "obj")
        first, second = (second, first) if group.endswith("smaller") else (first, second)
        return number, first, second
    if fields.get("Label") != "yes":
        raise RecordError(f"Label is {fields.get('Label')!r}; every published one is 'yes'")
    first, second = text_of(fields, "Item1"), text_of(fields, "Item2")
    return (
        number,
        f"{fields.get('Descriptor1') or ''} {first}".strip(),
        f"{fields.get('Descriptor2') or ''} {second}".strip(),
    )


read_color, read_shape = _attribute_reader("color"), _attribute_reader("shape")


def _benchmark(read: Reader, **files: tuple[str, ...]) -> Benchmark:
    return Benchmark(tuple(Source(*item) for item in files.items()), read, "next_word")


BENCHMARKS = {
    "memory_color": _benchmark(read_color, memory_color=("memory_color_data.csv",)),
    "color_terms": _benchmark(read_color, color_terms=("color-concrete-objects.csv",)),
    "object_shape": _benchmark(read_shape, object_shape=("shape.csv",)),
    "relative_size": _benchmark(read_size, relative_size=("size.csv", "sizePairsFull.txt")),
    "vicomte_color": _benchmark(read_color, vicomte_color=("color.jsonl",)),
    "vicomte_shape": _benchmark(read_shape, vicomte_shape=("shape.jsonl",)),
    "vicomte_size": _benchmark(
        read_size, vicomte_larger=("larger.jsonl",), vicomte_smaller=("smaller.jsonl",)
    ),
}
