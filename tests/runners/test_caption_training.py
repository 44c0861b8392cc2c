"""Late fusion trained on files by the released command: killed, resumed, exported, on two ranks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launching import launcher_environments
from lavis.common import cli
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "tests" / "tasks" / "language_modeling"
KILLER = """
import os, signal
from lavis.tasks.language_modeling.task import VisualLanguageModelingTask as Task
plain, steps = Task.train_step, []
def train_step(self, model, samples):
    steps.append(1)
    if len(steps) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, model, samples)
Task.train_step = train_step
"""


@pytest.fixture(scope="module")
def made():
    """The module that makes tiny models and data; children import it by its name."""
    sys.path.insert(0, str(TASKS))
    import caption_run

    yield caption_run
    sys.path.remove(str(TASKS))


def make_world(made, folder, **llm):
    """Fill a folder with a language model, a tower, Visual Genome and captions; return it."""
    made.make_llm(folder / "Llama-3", **llm)
    made.make_tower(folder / "tower")
    made.make_visual_genome(folder / "vg", 12)
    lines = [
        json.dumps({"image": f"{n // 2 * 2}.jpg", "text": text})
        for n, text in enumerate(made.captions(8))
    ]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def world(made, tmp_path_factory):
    return make_world(made, tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


def tiny(world, *more):
    return [
        f"model.vision.name={world / 'tower'}",
        "datasets.cropped_vg.vis_processor.train.image_size=8",
        "run.device=cpu",
        *more,
    ]


def command(world, output, *options):
    """The command as the released README writes it, for small files."""
    tracker = "wandb" if importlib.util.find_spec("wandb") else "tensorboard"
    text = (
        f"--run_name test --dataset_name cropped_vg --model_name_or_path {world / 'Llama-3'} "
        f"--output_dir {output} --report_to {tracker} --per_device_train_batch_size 4 "
        "--num_train_epochs 2 --run_bf16 --learning_rate 5e-2 --with_tracking "
        f"--data_dir {world / 'vg'} --checkpointing_steps 2"
    )
    return [*text.split(), "--options", *tiny(world, *options)]


def accelerate(argv, **env):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "train.py", *argv]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run(launch, cwd=ROOT, env=given, capture_output=True, text=True, timeout=300)


def two_ranks(forks, made, argv, folder):
    """Run `train.py` in two processes, as torchrun would start them."""
    ranks = []
    for rank, place in enumerate(launcher_environments(2)):
        env = {**place, "HF_HUB_OFFLINE": "1"}
        log = folder / f"log-{rank}"
        ranks.append(forks.Process(target=made.run_rank, args=(argv, env, str(log))))
        ranks[-1].start()
    for rank in ranks:
        rank.join(300)
    assert [rank.exitcode for rank in ranks] == [0, 0], (folder / "log-0").read_text()


def weights(folder):
    return (folder / "checkpoint_last" / "model.safetensors").read_bytes()


def test_the_released_command_killed_and_run_again_ends_with_the_same_bytes(world, tmp_path):
    (tmp_path / "killer.py").write_text(KILLER.format(at=5))  # of 6 steps, saved at 2, 3 and 4
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    argv = command(world, killed, "run.import_modules=[killer]")
    done = accelerate(argv, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0 and "SIGKILL" in done.stderr, done.stderr[-2000:]
    assert (killed / "test_0.bin").is_file() and not (killed / "test_1.bin").exists()
    assert cli.run_front_end("", "train", command(world, killed, "run.trackers=[]")) == 0
    assert "resumed" in (killed / "test" / "run.log").read_text()
    assert cli.run_front_end("", "train", command(world, whole, "run.trackers=[]")) == 0
    assert weights(killed / "test") == weights(whole / "test")
    for epoch in range(2):
        one, two = (
            torch.load(folder / f"test_{epoch}.bin", weights_only=True)
            for folder in (killed, whole)
        )
        assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    first, last = (torch.load(killed / f"test_{n}.bin", weights_only=True) for n in range(2))
    assert not torch.equal(first["mm_proj.linear1.weight"], last["mm_proj.linear1.weight"])
    assert torch.equal(first["lm_head.weight"], last["lm_head.weight"])
    check_exported(world, killed)


def check_exported(world, folder):
    """The `.bin`, named with and without its ending, predicts as the checkpoint does."""
    samples = {
        "input_ids": torch.tensor([[1, 4, 5, 6]]),
        "pixel_values": torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    }
    paths = [folder / "test_1.bin", folder / "test_1", folder / "test/checkpoint_last"]
    found = []
    for path in paths:
        config = LateFusionConfig(
            llm=str(world / "Llama-3"), llm_dtype="bf16", weights="mean",
            vision=VisionConfig(name=str(world / "tower")),
            pretrained=str(path / "model.safetensors" if path.is_dir() else path),
        )  # fmt: skip
        model = LateFusion.from_config(config).eval()
        found.append(model.predict(samples)["log_probs"])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def captioned(world, output, *options):
    source = "datasets.captioned_images.build_info"
    run = ROOT / "lavis" / "projects" / "vlmig" / "train" / "captioned_images.yaml"
    size = "datasets.captioned_images.vis_processor"
    return [
        "--cfg-path", str(run), "--options", f"model.llm={world / 'Llama-3'}",
        f"model.vision.name={world / 'tower'}", "run.device=cpu", f"run.output_dir={output}",
        f"{source}.annotations.train.storage={world / 'captions.jsonl'}",
        f"{source}.annotations.val.storage={world / 'captions.jsonl'}",
        f"{source}.images.storage={world / 'vg' / 'VG_100K'}", f"{size}.train.image_size=8",
        f"{size}.eval.image_size=8", "run.max_epoch=2", "run.init_lr=0.02", *options,
    ]  # fmt: skip


def test_two_ranks_train_as_one_with_cached_outputs_or_not(forks, made, world, tmp_path):
    argv = captioned(world, tmp_path / "two", "run.batch_size_train=2")
    two_ranks(forks, made, argv, tmp_path)
    one, plain = tmp_path / "one", tmp_path / "plain"
    assert cli.run_front_end("", "train", captioned(world, one, "run.batch_size_train=4")) == 0
    argv = captioned(world, plain, "run.batch_size_train=4", "run.cache_features=false")
    assert cli.run_front_end("", "train", argv) == 0
    states = [
        load_file(folder / "checkpoint_last" / "model.safetensors")
        for folder in (one, tmp_path / "two", plain)
    ]
    for name, value in states[0].items():
        for other in states[1:]:
            torch.testing.assert_close(other[name], value, atol=2e-5, rtol=2e-4)
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one, tmp_path / "two")
    ]
    for kind in ("train_epoch", "evaluate"):
        ours, theirs = ([row["loss"] for row in rows if row["kind"] == kind] for rows in lines)
        assert ours == pytest.approx(theirs, abs=1e-4) and ours[0] > ours[1]
    results = [
        json.loads((folder / "result" / "val_epoch1.json").read_text())
        for folder in (one, tmp_path / "two")
    ]
    assert [row["index"] for row in results[1]] == list(range(8))  # each once, in order
    assert [row["tokens"] for row in results[0]] == [row["tokens"] for row in results[1]]


def test_accumulated_batches_are_one_step(world, tmp_path):
    """Of texts of equal length, where the mean over batches is the mean over tokens."""
    lines = [json.dumps({"image": f"{n}.jpg", "text": "a box is red"}) for n in (0, 2, 4, 6)]
    same = tmp_path / "same.jsonl"
    same.write_text("\n".join(lines) + "\n")
    source = f"datasets.captioned_images.build_info.annotations.train.storage={same}"
    found = []
    for size, group in ((4, 1), (2, 2)):
        output = tmp_path / str(size)
        more = (f"run.batch_size_train={size}", f"run.accum_grad_iters={group}", source)
        assert cli.run_front_end("", "train", captioned(world, output, *more)) == 0
        found.append(load_file(output / "checkpoint_last" / "model.safetensors"))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-5, rtol=1e-4)


def test_wikitext_trains_on_images_that_are_drawn_first(world, tmp_path, monkeypatch):
    lines = "\n".join(["a red box . the ball is blue .", "the old table is green ."] * 12)
    for split in ("train", "valid"):
        (tmp_path / f"wiki.{split}.raw").write_text(lines)
    images = tmp_path / "pictures"
    images.mkdir()
    from PIL import Image

    Image.new("RGB", (16, 16), (220, 20, 20)).save(images / "a.png")
    blocks = "datasets.wiki"
    base = ROOT / "lavis/projects/vlmig/train/ft_wiki_laion_220.yaml"
    run = tmp_path / "wiki.yaml"  # without LAION
    text = base.read_text()
    start, end = text.index("  laion_220:"), text.index("run:\n")
    run.write_text(text[:start] + text[end:])
    from lavis.generators import folder as generator

    drawn = []

    def generate(self, requests):
        drawn.extend(request.prompt for request in requests)
        return [Image.new("RGB", (16, 16), (220, 20, 20)) for _ in requests]

    monkeypatch.setattr(generator.FolderGenerator, "generate", generate)
    argv = [
        "--cfg-path", str(run), "--options", f"model.llm={world / 'Llama-3'}",
        f"model.vision.name={world / 'tower'}", f"{blocks}.data_dir={tmp_path}",
        f"{blocks}.block_size=20", f"{blocks}.vis_processor.train.image_size=8",
        f"{blocks}.cache_dir={tmp_path / 'cache'}", "run.device=cpu", "run.num_workers=0",
        f"run.output_dir={tmp_path / 'out'}", "run.max_iters=4", "run.iters_per_inner_epoch=2",
        "run.batch_size_train=4", "run.init_lr=0.01", "run.cache_features=true",
        "run.images.generator=folder", f"run.images.options.root={images}",
        f"run.images.cache_dir={tmp_path / 'drawn'}", "run.valid_splits=[valid]",
        f"{blocks}.vis_processor.eval.image_size=8",
        f"{blocks}.build_info.annotations.valid.storage=[]",
    ]  # fmt: skip
    assert cli.run_front_end("", "train", argv) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train_epoch"]
    assert len(losses) == 2 and losses[1] < losses[0]
    found = [row["loss"] for row in rows if row["kind"] == "evaluate"]
    assert len(found) == 2 and found[1] < found[0]
    assert drawn and len(drawn) == len(set(drawn))  # once, whatever blocks ask for it
    assert {"a red box .", "the ball is blue ."} & set(drawn)
