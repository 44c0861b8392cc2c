"""ImageNetVC (Xia et al., 2023): visual commonsense about ImageNet's classes.

Published as `color.csv`, `shape.csv`, `material.csv`, `component.csv`, `others.csv` with columns
`category,question,answer`, and demonstrations of the same form in `dev/`. Five prompts a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis.common.errors import ConfigError, DataError
from lavis.datasets.benchmarks.files import Benchmark, Record, Source, read_each, read_file
from lavis.datasets.benchmarks.question import Question, ReadOptions
from lavis.datasets.files.json_values import text_of

PROMPTS = (
    "{q}",
    "{q} Answer:",
    "{q} The answer is",
    "Question: {q} Answer:",
    "Question: {q} The answer is",
)
DEMONSTRATIONS = (
    "{q} {a}. ",
    "{q} Answer: {a}. ",
    "{q} The answer is {a}. ",
    "Question: {q} Answer: {a}. ",
    "Question: {q} The answer is {a}. ",
)
_YES_NO = ("yes", "no")
CANDIDATES = {
    "color": (
        "brown", "black", "white", "yellow", "green", "gray", "red", "orange", "blue", "silver",
        "pink",
    ),
    "shape": (
        "round", "rectangle", "triangle", "square", "oval", "curved", "cylinder", "straight",
        "cone", "curly", "heart", "star",
    ),
    "material": (
        "metal", "wood", "plastic", "cotton", "glass", "fabric", "stone", "rubber", "ceramic",
        "cloth", "leather", "flour", "paper", "clay", "wax", "concrete",
    ),
    "component": _YES_NO,
    "others_yes": _YES_NO,
    "others_number": ("2", "4", "6", "1", "8", "3", "5"),
    "others_other": (
        "long", "small", "short", "large", "forest", "water", "ocean", "big", "tree", "ground",
        "tall", "wild", "outside", "thin", "head", "thick", "circle", "brown", "soft", "land",
        "neck", "rough", "chest", "smooth", "fur", "hard", "top", "plants", "black", "metal",
        "books", "vertical", "lake", "grass", "road", "sky", "front", "kitchen", "feathers",
        "stripes", "baby", "hair", "feet", "mouth", "female", "table",
    ),
}  # fmt: skip
SUBSETS = ("color", "shape", "material", "component", "others")
SOURCES = tuple(Source(name, (f"{name}.csv", f"{name}.jsonl")) for name in SUBSETS)


def answer_set(subset: str, answer: str) -> str:
    """Return the key of `CANDIDATES`; `others` is split by the gold answer, as the authors do."""
    if subset != "others":
        return subset
    if answer in _YES_NO:
        return "others_yes"
    return "others_number" if answer in CANDIDATES["others_number"] else "others_other"


def demonstrations(folder: Path, kind: str) -> tuple[str, ...]:
    """Return the prompts' examples of `<folder>/dev/<kind>.csv`; raises `DataError` without it."""
    path = folder / "dev" / f"{kind}.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; use_icl needs ImageNetVC's folder dev")
    pairs = []
    for record in read_file(path):
        if record.fields is None:
            raise DataError(f"{path}, line {record.line}: {record.reason}")
        pairs.append((text_of(record.fields, "question"), text_of(record.fields, "answer")))
    return tuple("".join(one.format(q=q, a=a) for q, a in pairs) for one in DEMONSTRATIONS)


def read(
    records: Sequence[Record], source: Source, config: ReadOptions
) -> Iterator[Question | Record]:
    """Yield each row's question, or the rejected record."""
    examples: dict[str, tuple[str, ...]] = {}
    folder = Path(records[0].file).parent
    if config.use_icl and not folder.is_dir():
        raise ConfigError("use_icl: needs data_dir, the folder that holds dev/")

    def question(fields: dict[str, Any], number: int) -> Question:
        title, answer = text_of(fields, "question"), text_of(fields, "answer").lower()
        kind = answer_set(source.group, answer)
        if config.use_icl and kind not in examples:
            examples[kind] = demonstrations(folder, kind)
        plain = tuple(prompt.format(q=title) for prompt in PROMPTS)
        before = examples.get(kind, ("",) * len(PROMPTS))
        return Question(
            question_id=f"{source.group}-{number}",
            kind="next_word",
            prompts=tuple(a + b for a, b in zip(before, plain, strict=True)),
            gold=answer,
            title=title,
            image_text=title,
            image_texts=plain,
            group=source.group,
            options=CANDIDATES[kind],
            meta={"category": fields.get("category"), "answer_set": kind},
        )

    yield from read_each(records, question)


BENCHMARKS = {"imagenetvc": Benchmark(SOURCES, read, "next_word")}
