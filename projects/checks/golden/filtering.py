"""The filtering command on a set's records: data set, task, journal and result files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from lavis.common.cli import build_runner
from lavis.common.config.loading import load_config
from projects.checks.golden.checks import (
    CHANCES,
    Check,
    compare,
    contained,
    read_json,
    read_weights,
    unequal,
)
from projects.checks.golden.inputs import sha256_rgb
from projects.checks.golden.sizes import model_fields


def filter_checks(folder: Path, config: dict[str, Any]) -> Iterator[Check]:
    """The filtering command on the set's records: data set, task, journal and result files."""
    at = folder / "filter"
    want = read_json(at / "expected.json")
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "critic.safetensors"
        save_file(
            {
                k: v.clone()  # tied tables are one tensor in the file's source
                for k, v in read_weights(folder / "critic" / "state_dict.safetensors.xz").items()
            },
            checkpoint,
        )
        run_file = Path(temporary) / "run.yaml"
        run_file.write_text(yaml.safe_dump(filter_run(at, config, want, checkpoint)))
        runner = build_runner(load_config(run_file))
        runner.evaluate()
        output = Path(temporary) / "output"
        rows = read_json(output / "result" / "test_epochbest.json")
        kept = {
            threshold: [
                json.loads(line)["index"]
                for path in output.rglob(f"*threshold_{threshold}.jsonl")
                for line in path.read_text().splitlines()
            ]
            for threshold in want["kept_at_threshold"]
        }
        dataset = runner.datasets["unified_vqa_binary"]["test"]
        yield from contained("filter.records", filter_record_checks(dataset, want, at))
    expected = read_json(at / "reference_result_list.json")
    yield unequal("filter.keys", [(list(a), list(b)) for a, b in zip(rows, expected, strict=True)])
    for key in ("text", "instance", "index", "prediction"):
        pairs = [(a.get(key), b[key]) for a, b in zip(rows, expected, strict=True)]
        yield unequal(f"filter.{key}", pairs)
    scores = torch.tensor([row["score"] for row in rows])
    yield compare("filter.score", scores, torch.tensor([row["score"] for row in expected]), CHANCES)
    for threshold, indices in want["kept_at_threshold"].items():
        yield unequal(f"filter.kept_at_{threshold}", [(kept[threshold], indices)])


def filter_run(
    at: Path, config: dict[str, Any], want: dict[str, Any], checkpoint: Path
) -> dict[str, Any]:
    """Return the run file of the filtering command for a set."""
    fields = model_fields(config, want["max_txt_len"])
    fields.update(
        arch="blip2_critic",
        load_pretrained=True,
        pretrained=str(checkpoint),
        image_size=want["image_size"],
    )
    split = {
        "storage": [str((at / "records.jsonl").resolve())],
        "region_mapping": str((at / "region_mapping.jsonl").resolve()),
    }
    return {
        "model": fields,
        "datasets": {
            "unified_vqa_binary": {
                "vis_processor": {
                    "eval": {"name": "blip_image_eval", "image_size": want["image_size"]}
                },
                "text_processor": {"eval": {"name": "blip_unified_vqa", "prompt": ""}},
                "region_source": "mapping_first",
                "build_info": {
                    "annotations": {"test": split},
                    "images": {"storage": str((at / "images").resolve()), "ann_root": ""},
                },
            }
        },
        "run": {
            "task": "multimodal_classification",
            "batch_size_eval": want["batch_size"],
            "keep_above": [float(key) for key in want["kept_at_threshold"]],
            "report_examples": 4,
            "output_dir": str(checkpoint.parent / "output"),
            "device": "cpu",
            "test_splits": ["test"],
        },
    }


def filter_record_checks(dataset: Any, want: dict[str, Any], at: Path) -> Iterator[Check]:
    """Text and pixels of each record, as the critic sees them."""
    rows = [dataset.row(record["row"]) for record in want["records"]]
    texts = [(row.text, record["text"]) for row, record in zip(rows, want["records"], strict=True)]
    yield unequal("filter.row_text", texts)
    hashes = [
        (sha256_rgb(dataset.drawn_image(row)), record["drawn_image_sha256_rgb"])
        for row, record in zip(rows, want["records"], strict=True)
    ]
    yield unequal("filter.drawn_pixels", hashes)
    pixels = torch.stack([dataset.image(row) for row in rows])
    expected = load_file(at / "processed_images.safetensors")["pixel_values"]
    yield compare("filter.pixel_values", pixels, expected, 1e-6)
