"""Every benchmark by name: its files, how they become questions, and what is asked of a model."""

from __future__ import annotations

from lavis.datasets.benchmarks import imagenetvc, multiple_choice, object_commonsense, reading

BENCHMARKS = {
    **imagenetvc.BENCHMARKS,
    **object_commonsense.BENCHMARKS,
    **multiple_choice.BENCHMARKS,
    **reading.BENCHMARKS,
}
