"""Every benchmark by name: its files, how they become questions, and what is asked of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis.datasets.benchmarks import imagenetvc, multiple_choice, object_commonsense, reading
from lavis.datasets.benchmarks.files import Record, Source
from lavis.datasets.benchmarks.question import Kind, Question

if TYPE_CHECKING:
    from lavis.datasets.benchmarks.config import BenchmarkConfig


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        sources: its files, in the order in which their questions come.
        read: records of one source -> questions, and records that are set aside.
        kind: of all its questions.
    """

    sources: tuple[Source, ...]
    read: Callable[[Sequence[Record], Source, BenchmarkConfig], Iterator[Question | Record]]
    kind: Kind


BENCHMARKS = {
    "imagenetvc": Benchmark(imagenetvc.SOURCES, imagenetvc.read, "next_word"),
    "memory_color": Benchmark(
        object_commonsense.MEMORY_COLOR, object_commonsense.read_color, "next_word"
    ),
    "color_terms": Benchmark(
        object_commonsense.COLOR_TERMS, object_commonsense.read_color, "next_word"
    ),
    "object_shape": Benchmark(
        object_commonsense.OBJECT_SHAPE, object_commonsense.read_shape, "next_word"
    ),
    "relative_size": Benchmark(
        object_commonsense.RELATIVE_SIZE, object_commonsense.read_size, "next_word"
    ),
    "vicomte_color": Benchmark(
        object_commonsense.VICOMTE_COLOR, object_commonsense.read_color, "next_word"
    ),
    "vicomte_shape": Benchmark(
        object_commonsense.VICOMTE_SHAPE, object_commonsense.read_shape, "next_word"
    ),
    "vicomte_size": Benchmark(
        object_commonsense.VICOMTE_SIZE, object_commonsense.read_size, "next_word"
    ),
    "piqa": Benchmark(multiple_choice.PIQA, multiple_choice.read_piqa, "choice"),
    "siqa": Benchmark(multiple_choice.SIQA, multiple_choice.read_siqa, "choice"),
    "hellaswag": Benchmark(multiple_choice.HELLASWAG, multiple_choice.read_hellaswag, "choice"),
    "winogrande": Benchmark(multiple_choice.WINOGRANDE, multiple_choice.read_winogrande, "choice"),
    "arc": Benchmark(multiple_choice.ARC, multiple_choice.read_choices, "choice"),
    "arc_easy": Benchmark(multiple_choice.ARC_EASY, multiple_choice.read_choices, "choice"),
    "arc_challenge": Benchmark(
        multiple_choice.ARC_CHALLENGE, multiple_choice.read_choices, "choice"
    ),
    "obqa": Benchmark(multiple_choice.OBQA, multiple_choice.read_choices, "choice"),
    "cqa": Benchmark(multiple_choice.CQA, multiple_choice.read_choices, "choice"),
    "boolq": Benchmark(reading.BOOLQ, reading.read_boolq, "next_word"),
    "squad": Benchmark(reading.SQUAD, reading.read_squad, "generate"),
    "quac": Benchmark(reading.QUAC, reading.read_quac, "generate"),
}
