"""From judgements to training records of the critic, with labels and mean scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.base import RecordDataset
from lavis.datasets.files.json_values import json_line
from lavis.datasets.lck.record import read_label
from lavis.ui.label.judgements import LABELS, Judgement, only_labels
from lavis.ui.label.queue import LabelItem

_LABELS = ("label", "reject_label", "qa_score", "r_score", "label_comments")


def training_record(
    record: Mapping[str, Any], judgements: Sequence[Judgement], *, majority: bool = False
) -> dict[str, Any]:
    """Return a record with people's labels, which replace its own.

    `label` lists the verdicts, `qa_score` and `r_score` are means of those that gave one.
    Readers of `label` accept with two or more `accept`, which is meant for three people.
    `label_comments` holds `{annotator, comment}` of those that wrote one.
    `reject_label`, which readers prefer, is written with `majority`, and wherever that rule differs
    from the majority. A tie rejects.

    Args:
        judgements: in the annotators' order; at least one besides `unsure` and `skip`.
    """
    comments = [{"annotator": j.annotator, "comment": j.comment} for j in judgements if j.comment]
    judgements = [j for j in judgements if j.verdict in LABELS]
    labels = [j.verdict for j in judgements]
    labelled = {k: v for k, v in record.items() if k not in _LABELS}
    labelled["label"] = list(labels)
    accepted = 2 * labels.count("accept") > len(labels)
    if majority or read_label({"label": list(labels)}) != int(accepted):
        labelled["reject_label"] = int(not accepted)
    for name in ("qa_score", "r_score"):
        scores = [getattr(j, name) for j in judgements if getattr(j, name) is not None]
        if scores:
            labelled[name] = sum(scores) / len(scores)
    if comments:
        labelled["label_comments"] = comments
    return labelled


def export_comments(judgements: Mapping[str, Mapping[str, Judgement]], target: Path) -> int:
    """Write every comment, whatever its verdict, as a JSON line; returns how many."""
    wanted = ("key", "instance", "annotator", "verdict", "comment", "time")
    comments = [j for mine in judgements.values() for j in mine.values() if j.comment]
    with AtomicFile(target) as output:
        for judgement in comments:
            output.write(json_line({name: getattr(judgement, name) for name in wanted}) + b"\n")
    return len(comments)


def export_training(
    dataset: RecordDataset,
    items: Sequence[LabelItem],
    judged: Mapping[str, Mapping[str, Judgement]],
    target: Path,
    *,
    majority: bool = False,
    min_annotators: int = 1,
) -> dict[str, Any]:
    """Write the judged records in corpus order, as JSON lines; returns counts.

    The file is whole or not there.

    Args:
        items: the records that could be judged.
        judged: annotator -> key -> judgement; of `unsure` and `skip` only comments are kept.
        min_annotators: records that fewer people judged are left out and counted.
    """
    counts = {"written": 0, "accepted": 0, "with_reject_label": 0, "too_few_judgements": 0}
    labels = only_labels(judged)
    with AtomicFile(target) as output:
        for item in sorted(items, key=lambda item: item.index):
            people = sum(item.key in mine for mine in labels.values())
            if people < max(1, min_annotators):
                counts["too_few_judgements"] += people > 0
                continue
            judgements = [mine[item.key] for mine in judged.values() if item.key in mine]
            record = training_record(dataset.record(item.index), judgements, majority=majority)
            output.write(json_line(record) + b"\n")
            counts["written"] += 1
            counts["accepted"] += read_label(record) == 1
            counts["with_reject_label"] += "reject_label" in record
    elsewhere = {key for mine in labels.values() for key in mine} - {item.key for item in items}
    return {"file": str(target), **counts, "judged_but_not_in_corpus": len(elsewhere)}
