"""Compare this code with numbers measured on the published LSKD implementation.

    python scripts/check_golden.py tests/fixtures/lskd

One line a comparison: name, largest absolute difference, tolerance, pass or FAIL; the exit status
is 1 where any failed. Sizes and names come from the folder's files. Pixels, text and ids must be
equal; hidden states, logits and gradients agree to 1e-4, probabilities and losses to 1e-5.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from lavis.common import optim  # noqa: F401 (registers the schedules)
from lavis.common.cli import build_runner
from lavis.common.config import load_config
from lavis.common.registry import lr_schedulers, models, processors
from lavis.datasets.lck_record import read_label
from lavis.models.blip2.config import CriticConfig, QFormerConfig, Stage1Config, VitConfig
from lavis.models.blip2.keys import lavis_name
from lavis.processors.region import (
    DrawnRegion,
    RegionTag,
    draw_regions,
    region_colors,
    tag_tokens,
)

STATES, CHANCES, EXACT = 1e-4, 1e-5, 0.0


@dataclass(frozen=True)
class Check:
    """One comparison: `difference` is the largest absolute one, or the count of unequal items."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is finite and within the tolerance."""
        return self.difference <= self.tolerance  # False for NaN


def compare(name: str, found: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Compare two tensors; different shapes differ without bound."""
    found = torch.as_tensor(found).detach()
    if tuple(found.shape) != tuple(expected.shape):
        return Check(f"{name} {tuple(found.shape)} != {tuple(expected.shape)}", np.inf, tolerance)
    gap = (found.double() - expected.double()).abs().max().item() if found.numel() else 0.0
    return Check(name, gap, tolerance)


def unequal(name: str, pairs: list[tuple[Any, Any]]) -> Check:
    """Count pairs that are not equal; no pair at all is a failure."""
    return Check(name, sum(a != b for a, b in pairs) if pairs else np.inf, EXACT)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors.xz` file."""
    with lzma.open(path) as file:
        return load(file.read())


def model_fields(config: dict[str, Any], max_txt_len: int) -> dict[str, Any]:
    """Return the `model` section for the sizes in a set's `config.json`."""
    dims, eps = config["dims"], config["layer_norm_eps"]
    return {
        "model_type": "pretrain",
        "load_pretrained": False,
        "image_size": config["image_size"],
        "num_query_token": dims["num_query"],
        "cross_attention_freq": dims["cross_freq"],
        "vit_precision": "fp32",
        "max_txt_len": max_txt_len,
        "vit": {
            "embed_dim": dims["vit_dim"],
            "depth": dims["vit_depth"],
            "num_heads": dims["vit_heads"],
            "mlp_ratio": dims["mlp_ratio"],
            "patch_size": dims["patch"],
        },
        "qformer": {
            "hidden_size": dims["q_hidden"],
            "num_hidden_layers": dims["q_layers"],
            "num_attention_heads": dims["q_heads"],
            "intermediate_size": dims["q_inter"],
            "layer_norm_eps": eps["qformer"],
        },
    }


def build(arch: str, cls: Any, fields: dict[str, Any], weights: dict[str, Tensor], **more: Any):
    """Return the model in evaluation mode with every weight of the set loaded."""
    fields = {**fields, **more, "arch": arch}
    fields["vit"] = VitConfig(**fields["vit"])
    fields["qformer"] = QFormerConfig(**fields["qformer"])
    model = models.get(arch)(cls(**fields))
    model.load_state(weights, strict_frozen=True)
    return model.eval()


def record_outputs(model: torch.nn.Module, wanted: dict[str, torch.nn.Module]) -> dict[str, list]:
    """Keep what the given modules return, by name, whenever the model runs."""
    kept: dict[str, list] = {name: [] for name in wanted}
    for name, module in wanted.items():
        module.register_forward_hook(lambda _m, _i, output, name=name: kept[name].append(output))
    return kept


def critic_checks(folder: Path, config: dict[str, Any]) -> Iterator[Check]:
    """Every intermediate result, loss and gradient of the critic, its parameter lists and groups."""
    at = folder / "critic"
    inputs, want = load_file(at / "inputs.safetensors"), load_file(at / "outputs.safetensors")
    texts = [item["text"] for item in read_json(at / "texts.json")["texts"]]
    weights = read_weights(at / "state_dict.safetensors.xz")
    fields = model_fields(config, config["critic_max_txt_len"])
    model = build("blip2_critic", CriticConfig, fields, weights, rationale_target="qa_label")
    yield from critic_forward_checks(model, inputs, texts, want)
    yield from critic_loss_checks(model, inputs, texts, want, at)
    mended = build("blip2_critic", CriticConfig, fields, weights, rationale_target="r_label")
    with torch.no_grad():
        losses = mended({**inputs, "text_input": texts})
    yield compare(
        "critic.loss_r_against_r_label", losses["loss_r"], want["loss_r_against_r_label"], CHANCES
    )
    yield from parameter_checks(model, at)


def critic_forward_checks(
    model: Any, inputs: dict[str, Tensor], texts: list[str], want: dict[str, Tensor]
) -> Iterator[Check]:
    """Ids, tower, norm, Q-Former layers, heads and probabilities."""
    ids, mask = model.tokenize(texts)
    length = ids.shape[1]
    yield unequal("critic.input_ids", [(ids.tolist(), want["input_ids"][:, :length].tolist())])
    expected_mask = want["attention_mask"][:, :length]  # padded to the longest text, not further
    yield unequal("critic.attention_mask", [(mask.tolist(), expected_mask.tolist())])
    modules = {f"block{i}": block for i, block in enumerate(model.visual_encoder.blocks)}
    layers = {f"layer{i}": layer for i, layer in enumerate(model.qformer.model.encoder.layer)}
    kept = record_outputs(model, {**modules, **layers})
    samples = {"image": inputs["image"], "text_input": texts}
    queries = model.fused_queries(samples)  # with gradients: the last layer is not trimmed
    features = model.encode_frozen(inputs["image"])
    blocks = torch.stack([kept[name][0] for name in modules])
    yield compare("critic.vit_block_outputs", blocks, want["vit_block_outputs"], STATES)
    yield compare("critic.vit_out", features, want["vit_out"], STATES)
    embeds = model.image_embeds(features)
    yield compare("critic.image_embeds", embeds, want["image_embeds"], STATES)
    hidden = torch.stack([kept[name][0] for name in layers])
    expected = want["qformer_layer_outputs"][:, :, : hidden.shape[2]]
    yield compare("critic.qformer_layer_outputs", hidden, expected, STATES)
    yield compare("critic.qformer_query_hidden", queries, want["qformer_query_hidden"], STATES)
    tokens = model.itm_head(queries)
    yield compare("critic.itm_token_logits", tokens, want["itm_token_logits"], STATES)
    predicted = model.predict(samples)
    yield compare("critic.itm_logits", predicted["logits"], want["itm_logits"], STATES)
    yield compare("critic.prediction", predicted["prediction"], want["prediction"], CHANCES)
    for name, head in (("qa_pred", model.qa_head), ("r_pred", model.r_head)):
        yield compare(f"critic.{name}", head(queries).mean(dim=1)[:, 0], want[name], STATES)


def critic_loss_checks(
    model: Any,
    inputs: dict[str, Tensor],
    texts: list[str],
    want: dict[str, Tensor],
    at: Path,
) -> Iterator[Check]:
    """Losses of training and evaluation, and gradients of the released total."""
    samples = {**inputs, "text_input": texts}
    losses = model(samples)
    names = {
        "loss_label": "loss_label",
        "loss_qa": "loss_qa",
        "loss_r": "loss_r_reference",
        "loss": "loss_total_reference",
    }
    for ours, theirs in names.items():
        yield compare(f"critic.{theirs}", losses[ours], want[theirs], CHANCES)
    label_only = {k: v for k, v in samples.items() if not k.endswith("_label")}
    with torch.no_grad():
        yield compare("critic.loss_eval", model(label_only)["loss"], want["loss_eval"], CHANCES)
    yield from gradient_checks("critic", model, losses["loss"], at / "gradients.safetensors")


def gradient_checks(name: str, model: Any, loss: Tensor, path: Path) -> Iterator[Check]:
    """Gradients of a loss, by the published parameter names."""
    model.zero_grad()
    loss.backward()
    grads = {lavis_name(n): p.grad for n, p in model.named_parameters() if p.grad is not None}
    for key, expected in load_file(path).items():
        found = grads.get(key, torch.full_like(expected, torch.nan))
        yield compare(f"{name}.gradient.{key}", found, expected, STATES)


def parameter_checks(model: Any, at: Path) -> Iterator[Check]:
    """Which weights train, which a checkpoint holds, and which are decayed."""
    expected = read_json(at / "trainable.json")
    unused = ("Qformer.cls.",)  # the language-model head, which the critic never runs
    buffers = ("Qformer.bert.embeddings.position_ids",)

    def kept(names: list[str]) -> list[str]:
        return sorted(n for n in names if not n.startswith(unused) and n not in buffers)

    names = {lavis_name(name): p for name, p in model.named_parameters()}
    trainable = [name for name, p in names.items() if p.requires_grad]
    frozen = [name for name, p in names.items() if not p.requires_grad]
    yield unequal("critic.trainable", [(kept(trainable), kept(expected["requires_grad"]))])
    yield unequal("critic.frozen", [(kept(frozen), kept(expected["frozen"]))])
    written = [n for n in expected["keys_written_by_the_trainer"] if not n.endswith("decoder.bias")]
    ours = sorted(model.trainable_state_dict())
    yield unequal("critic.checkpoint_keys", [(ours, sorted(set(written) - set(buffers)))])
    by_id = {id(p): name for name, p in names.items()}
    found = sorted(
        (group["weight_decay"], group["lr_scale"], sorted(by_id[id(p)] for p in group["params"]))
        for group in model.get_optimizer_params(0.05, 1.0)
    )
    groups = sorted(
        (group["weight_decay"], group["lr_scale"], sorted(group["params"]))
        for group in read_json(at / "optimizer_groups.json")
    )
    yield unequal("critic.optimizer_groups", [(found, groups)])


def resized_checks(folder: Path, config: dict[str, Any]) -> Iterator[Check]:
    """The critic at other picture sizes: its position table is resampled while loading."""
    weights = read_weights(folder / "critic" / "state_dict.safetensors.xz")
    texts = [item["text"] for item in read_json(folder / "critic" / "texts.json")["texts"]]
    for path in sorted((folder / "resized_vit").glob("size_*.safetensors")):
        want = load_file(path)
        fields = model_fields(config, config["critic_max_txt_len"])
        fields["image_size"] = want["image"].shape[-1]
        model = build("blip2_critic", CriticConfig, fields, weights)
        name = f"resized_vit.{fields['image_size']}"
        samples = {"image": want["image"], "text_input": texts[: len(want["image"])]}
        table = model.visual_encoder.pos_embed
        yield compare(f"{name}.pos_embed", table, want["pos_embed"], STATES)
        features = model.encode_frozen(want["image"])
        yield compare(f"{name}.vit_out", features, want["vit_out"], STATES)
        embeds = model.image_embeds(features)
        yield compare(f"{name}.image_embeds", embeds, want["image_embeds"], STATES)
        with torch.no_grad():
            queries, found = model.fused_queries(samples), model.predict(samples)
        yield compare(f"{name}.query_hidden", queries, want["qformer_query_hidden"], STATES)
        yield compare(f"{name}.itm_logits", found["logits"], want["itm_logits"], STATES)
        yield compare(f"{name}.prediction", found["prediction"], want["prediction"], CHANCES)


def drawing_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """Pixels of drawn boxes and polygons, the older three-colour style, and the colour formula."""
    at = folder / "drawing"
    cases = read_json(at / "cases.json")

    def drawn(source: str, regions: list[DrawnRegion], **options: Any) -> Image.Image:
        with Image.open(at / source) as image:
            return draw_regions(image.convert("RGB"), regions, **options)

    for case in cases["cases"]:
        regions = [
            DrawnRegion(r["color_id"], tuple(r["coords"][:4]))
            if case["mode"] == "boxes"
            else DrawnRegion(r["color_id"], (0, 0, 0, 0), as_polygons(r["coords"]))
            for r in case["regions"]
        ]
        image = drawn(case["input"], regions)
        yield pixel_check(f"drawing.{case['output']}", image, at / case["output"], case)
    old = cases.get("person_xyz")
    if old:
        regions = [DrawnRegion(i, tuple(box)) for i, box in enumerate(old["boxes"])]
        image = drawn(old["input"], regions, palette="person_xyz")
        yield pixel_check(f"drawing.{old['output']}", image, at / old["output"], old)
    colors = read_json(at / "colors.json")
    pairs = [
        (list(map(list, region_colors(int(key)))), [c["fill_rgba"], c["outline_rgba"]])
        for key, c in colors.items()
    ]
    yield unequal("drawing.colors", pairs)


def as_polygons(parts: list[Any]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return nested lists of points as tuples."""
    return tuple(tuple((x, y) for x, y in part) for part in parts)


def pixel_check(name: str, image: Image.Image, path: Path, case: dict[str, Any]) -> Check:
    """Compare a picture with a stored one, by pixels and by hash."""
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"), dtype=int)
    gap = int(np.abs(np.asarray(image, dtype=int) - expected).max())
    same_hash = sha256_rgb(image) == case["sha256_rgb"]
    return Check(name, gap if same_hash else max(gap, 1), EXACT)


def sha256_rgb(image: Image.Image) -> str:
    """Return the SHA-256 of a picture's raw RGB bytes."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def text_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """Region tags, text processors and labels."""
    critic_text = processors.get("blip_unified_vqa").from_config({})
    for number, case in enumerate(read_json(folder / "text" / "region_tags.json")):
        ordered = case["regions_carry_their_list_position"]
        tags = {
            int(r["name"]): RegionTag(
                place if ordered else None, r.get("obj_guess", ""), r.get("description", "")
            )
            for place, r in enumerate(case["regions"])
        }
        tokens = tag_tokens(case["tokens"], tags, **case["options"])
        text = " ".join(str(word) for word in tokens)
        after = critic_text(text)
        yield unequal(
            f"text.region_tags.{number}",
            [
                (tokens, case["expected_tokens"]),
                (text, case["expected_text"]),
                (after, case["expected_after_text_processor"]),
            ],
        )
    names = ("blip_unified_vqa", "blip_caption", "blip_question")
    for name in names:
        pairs = []
        for case in read_json(folder / "text" / "text_processors.json")["cases"]:
            node = {"max_words": case["max_words"], "prompt": case["prompt"]}
            if name == "blip_question":
                del node["prompt"]
            call = processors.get(name).from_config(node)
            more = {"add_prompt": case["add_prompt"]} if "add_prompt" in case else {}
            more = more if name == "blip_unified_vqa" else {}
            pairs.append((call(case["text"], **more), case[name]))
        yield unequal(f"text.{name}", pairs)
    two_classes = [
        (read_label(case["record"], polarity="released"), case["expected"])
        for case in read_json(folder / "text" / "labels.json")
        if not case["multi_class"] and not case["generative"]
    ]
    yield unequal("text.labels (two classes)", two_classes)


def image_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """The evaluation image processor on whole pictures, sub-grids, rows and statistics."""
    at = folder / "image_processor"
    info, want = read_json(at / "info.json"), load_file(at / "expected.safetensors")
    for key, expected in want.items():
        side, image, part = key.split(".")
        size = int(side.removeprefix("eval_"))
        processor = processors.get("blip_image_eval").from_config({"image_size": size})
        with Image.open(at / info["images"][int(image.removeprefix("image_"))]) as opened:
            found = processor(opened.convert("RGB"))
        if part == "sub":
            step = info["sub_step"][str(size)]
            found = found[:, ::step, ::step]
        elif part == "row":
            found = found[:, info["row"][str(size)]]
        elif part == "channel_mean":
            found = found.mean(dim=(1, 2))
        elif part == "channel_std":
            found = found.std(dim=(1, 2))
        tolerance = CHANCES if part.startswith("channel") else 1e-6  # one pixel level is 0.0146
        yield compare(f"image_processor.{key}", found, expected, tolerance)


def schedule_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """Learning rates, bit for bit."""
    for number, case in enumerate(read_json(folder / "lr" / "schedules.json")):
        schedule = lr_schedulers.get(case["schedule"])(**case["config"])
        pairs = [(schedule.lr(epoch, step), lr) for epoch, step, lr in case["rows_epoch_step_lr"]]
        yield unequal(f"lr.{number}.{case['schedule']}", pairs)


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
        result = Path(temporary) / "output" / "result"
        rows = read_json(result / "test_epochbest.json")
        kept = {
            threshold: [
                json.loads(line)["index"]
                for path in result.rglob(f"*threshold_{threshold}.jsonl")
                for line in path.read_text().splitlines()
            ]
            for threshold in want["kept_at_threshold"]
        }
        dataset = runner.datasets["unified_vqa_binary"]["test"]
        yield from filter_record_checks(dataset, want, at)
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
    pixels = torch.stack([dataset.picture(row) for row in rows])
    expected = load_file(at / "processed_images.safetensors")["pixel_values"]
    yield compare("filter.pixel_values", pixels, expected, 1e-6)


PARTS: dict[str, Callable[[Path, dict[str, Any]], Iterator[Check]]] = {
    "critic": critic_checks,
    "resized_vit": resized_checks,
    "drawing": drawing_checks,
    "text": text_checks,
    "image_processor": image_checks,
    "lr": schedule_checks,
    "filter": filter_checks,
}


def main() -> int:
    """Run every comparison the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a set in the format of tests/fixtures/lskd")
    folder: Path = parser.parse_args().folder
    if not (folder / "config.json").is_file():
        sys.stderr.write(f"error: {folder}/config.json: no such file; give a folder of a set\n")
        return 2
    config = read_json(folder / "config.json")
    checks: list[Check] = []
    for part, run in PARTS.items():
        if not (folder / part).is_dir():
            continue
        for check in run(folder, config):
            checks.append(check)
            state = "pass" if check.passed else "FAIL"
            print(f"{check.name:60} {check.difference:10.3g} {check.tolerance:8.0e}  {state}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
