"""Our benchmarks as tasks of lm-evaluation-harness, for any of its models.

The YAML files in `lavis/configs/lm_eval` name these functions; the benchmarks' own readers read the
published files below `--metadata data_dir=FOLDER`.
"""

from __future__ import annotations

from typing import Any

from lavis.common.errors import ConfigError, RecordError
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.benchmarks.question import Question
from lavis.datasets.config import BuildInfo, ProcessorPair, SplitSource
from lavis.tasks.questions.reading_metrics import first_line, score_answer


def questions(
    benchmark: str,
    data_dir: str | None = None,
    subset: str | None = None,
    prompt: int | None = None,
    protocol: str = "released",
    use_icl: bool = False,
    **_: Any,
) -> dict[str, Any]:
    """Return the split `test` of a benchmark, a row for each question and prompt.

    Args:
        benchmark: a name of `lavis.datasets.benchmarks.table`.
        data_dir: folder of the published files.
        subset: one of the benchmark's groups (None: all).
        prompt: one of a question's prompts, from 0 (None: all, a row each).
        protocol: see `BenchmarkConfig`.
        use_icl: see `BenchmarkConfig`.
        _: what else the harness knows: arguments of its model.

    Raises:
        ConfigError: there is no such folder.
    """
    from datasets import Dataset

    if data_dir is None:
        raise ConfigError(
            f"data_dir: missing; give the folder of {benchmark}'s files with "
            "--metadata data_dir=FOLDER"
        )
    config = BenchmarkConfig(
        benchmark=benchmark,
        data_dir=str(data_dir),
        subsets=None if subset is None else [subset],
        protocol=protocol,  # type: ignore[arg-type]  # checked there
        use_icl=use_icl,
        build_info=BuildInfo(annotations={"test": SplitSource(storage=[])}),
        vis_processor=ProcessorPair(eval={"name": "base"}),
    )
    dataset = BenchmarkDataset(config, "test")
    rows = []
    for index in range(len(dataset)):
        try:
            question = dataset.question(index)
        except RecordError:
            continue  # set aside, as in our own evaluation
        numbers = range(len(question.prompts)) if prompt is None else [prompt]
        rows += [_row(question, number) for number in numbers]
    return {"test": Dataset.from_list(rows)}


def _row(question: Question, prompt: int) -> dict[str, Any]:
    """Return one row; candidates also stand in capitals, where that counts."""
    row: dict[str, Any] = {
        "question_id": question.question_id,
        "group": question.group,
        "prompt": prompt,
        "context": question.prompts[prompt],
    }
    if question.kind == "generate":
        assert isinstance(question.gold, tuple)
        return {**row, "answers": list(question.gold), "scorer": question.scorer}
    if question.kind != "next_word":
        raise ConfigError("benchmark: the harness has tasks for multiple choice of its own")
    options = list(question.options)
    capitals = [option.capitalize() for option in options] if question.forms == "both" else []
    choices = options + capitals
    gold = [n for n, choice in enumerate(choices) if choice.lower() == str(question.gold).lower()]
    return {**row, "choices": choices, "gold": gold or [len(choices)]}


def score_reading(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return exact match and F1 of the first line that was written, by the benchmark's rules."""
    return score_answer(first_line(results[0]), tuple(doc["answers"]), doc["scorer"])
