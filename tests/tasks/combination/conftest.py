"""Runs of critics on one small corpus, as folders: config, images, and score files."""

import json

import pytest
from PIL import Image

from lavis.common.config.loading import load_config
from lavis.tasks.combination.output import open_data
from lavis.tasks.combination.score_rows import CriticRun

RUN_FILE = "lavis/projects/blip2/eval/lck/critic_filtering.yaml"


@pytest.fixture
def corpus(tmp_path):
    """Make `count` records of coloured images with a box, every second one labelled accept."""

    def make(count, labels=True):
        for number in range(count):
            image = Image.new("RGB", (60, 40), (40 * (number % 6), 90, 120))
            image.save(tmp_path / f"{number}.png")
        records = [
            {
                "image": f"{number}.png",
                "index": f"id-{number}",
                "region": [1],
                "references": [{"name": "1", "boxes": [[5, 5, 30, 30]], "obj_guess": "cup"}],
                "question": ["What", "is", [1], "?"],
                "answer": [f"Cup number {number}"],
                "rationale": ["It is round."],
                **({"label": number % 2} if labels else {}),
            }
            for number in range(count)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "records.jsonl").write_text(lines)
        return tmp_path

    return make


@pytest.fixture
def run_folder(tmp_path):
    """Write a run's folder with a score for each row (None: none) of `records.jsonl`."""

    def write(name, scores, processor="blip_unified_vqa", with_config=True, **columns):
        folder = tmp_path / "runs" / name
        (folder / "result").mkdir(parents=True)
        section = "datasets.unified_vqa_binary"
        options = [
            f"{section}.build_info.annotations.test.storage={tmp_path / 'records.jsonl'}",
            f"{section}.build_info.images.storage={tmp_path}",
            "run.keep_above=[0.5,0.8]",
            f"run.output_dir={folder}",
        ]
        path = folder / "result" / "test_epochbest.jsonl"
        config = load_config(RUN_FILE, options)
        config.tree["datasets"]["unified_vqa_binary"]["text_processor"]["eval"] = {
            "name": processor
        }
        (folder / "config.yaml").write_text(config.to_yaml())
        dataset, _ = open_data(CriticRun(name, path), [])
        rows = [dataset.row(index) for index in range(len(dataset))]
        lines = [
            {"text": row.text, **row.fields, "prediction": int(score > 0.5), "score": score}
            | {column: values[row.index] for column, values in columns.items()}
            for row, score in zip(rows, scores, strict=True)
            if score is not None
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if not with_config:
            (folder / "config.yaml").unlink()
        return folder

    return write
