"""The command of the labelling page without its page."""

import json
import subprocess
import sys
from pathlib import Path

from label_items import read_items

from lavis.ui.label.judgements import Judgement, JudgementStore

ROOT = Path(__file__).parents[3]


def run(*flags):
    command = [sys.executable, str(ROOT / "scripts" / "label_qar.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_labels_are_exported_without_a_page(world):
    records = [world.record(0), world.record(1), "{torn"]
    dataset = world.open(records)
    items = read_items(dataset).all()
    out = world.folder / "labels"
    store = JudgementStore(out / "judgements", ["bo", "ann"])
    for name, verdicts in {"bo": ["accept", "reject"], "ann": ["accept", "accept"]}.items():
        for item, verdict in zip(items, verdicts, strict=True):
            judgement = Judgement(key=item.key, annotator=name, verdict=verdict, qa_score=0.5)
            store.file(name).append(judgement)
    corpus = world.folder / "corpus.jsonl"
    fixed = [corpus, "--image-root", world.root, "--out", out, "--export"]
    done = run(*fixed, "--majority")
    assert done.returncode == 0, done.stderr
    lines = (out / "critic_train.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(r["label"], r["reject_label"], r["qa_score"]) for r in found] == [
        (["accept", "accept"], 0, 0.5),
        (["accept", "reject"], 1, 0.5),  # names found in the folder are sorted: ann, bo
    ]
    agreement = json.loads((out / "agreement.json").read_text())["agreement"]
    assert agreement["pairs"][0]["same_verdict"] == 0.5
    rejects = (out / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [3]
    fixed[4] = world.folder / "nobody"  # where nothing was judged
    empty = run(*fixed)
    assert empty.returncode == 1 and "no record has a label to train on" in empty.stderr
    refused = run(*fixed, "--annotators", "a,a")
    assert (refused.returncode, refused.stderr[:9]) == (2, "error: --")
