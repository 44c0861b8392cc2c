"""All benchmarks by name: files, readers and kind of question."""

from __future__ import annotations

from lavis.datasets.benchmarks import imagenetvc, multiple_choice, object_commonsense, reading

BENCHMARKS = {
    **imagenetvc.BENCHMARKS,
    **object_commonsense.BENCHMARKS,
    **multiple_choice.BENCHMARKS,
    **reading.BENCHMARKS,
}
