"""The student's shipped run file under both launchers, killed and resumed to the same bytes.

On a CPU `accelerate launch` starts one process; several need MPI there.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
RUN_FILE = "lavis/projects/blip2/train/unified_vqa_chatgpt_contrastive.yaml"
NAME = "datasets.unified_vqa_chatgpt_contrastive"
RUN_OUTPUT = "BLIP2/Unified_qa_chatgpt_pretrain1_v2/boxes_480_contrastive"
TINY = [
    "model.load_pretrained=false",
    "model.image_size=28",
    "model.num_query_token=4",
    "model.max_txt_len=24",
    "model.embed_dim=16",
    "model.vit.embed_dim=32",
    "model.vit.depth=2",
    "model.vit.num_heads=4",
    "model.qformer.hidden_size=32",
    "model.qformer.num_hidden_layers=2",
    "model.qformer.num_attention_heads=4",
    "model.qformer.intermediate_size=64",
    f"{NAME}.vis_processor.train.image_size=28",
    f"{NAME}.vis_processor.eval.image_size=28",
    "run.max_iters=6",
    "run.iters_per_inner_epoch=2",
    "run.save_every_steps=1",
    "run.batch_size_train=4",
    "run.init_lr=1e-2",
    "run.test_splits=[]",
    "run.device=cpu",
]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ACCELERATE = [
    "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1",
    "--mixed_precision=no", "--dynamo_backend=no",
]  # fmt: skip


@pytest.fixture
def corpus(tmp_path):
    """The files that the run file's defaults name, and the environment that points at them."""
    images, annotations, inputs = (tmp_path / part for part in ("images", "annot", "input"))
    lck = annotations / "blip2_chatgpt" / "lavis_chatgpt_data"
    for folder in (images, lck, inputs / "sherlock"):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    region = {"boxes": [[4, 4, 30, 28]], "obj_guess": "box"}
    records, choices, mapping = [], [], []
    for number in range(12):
        pixels = rng.integers(0, 255, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
        colour = ["red", "green", "blue"][number % 3]
        mapping.append({"image": f"{number}.png", "region_locations": [region]})
        records += [
            {
                "image": f"{number}.png", "index": f"{number}-{i}", "region": [0],
                "region_all": [0], "question": ["What", "is", [0], "?"], "answer": [word],
                "rationale": ["It", "looks", word],
            }
            for i, word in enumerate((colour, f"box{number}"))
        ]  # fmt: skip
        choices.append(
            {
                "image": f"{number}.png", "instance_id": f"s{number}",
                "references": {"0": region}, "text_input": ["What", "is", [0], "?"],
                "choices": [
                    {"text_output": [word], "score": float(rng.integers(0, 5))}
                    for word in ("red", "green", "blue", f"box{number}")
                ],
            }
        )  # fmt: skip
    kinds = "critic_input_all_vcr_vg_region_verbalizations~chatgpt_1M_filtered_threshold_0.7"
    written = {
        lck / f"train_{kinds}.jsonl": records,
        inputs / "sherlock/unified_sherlock_val_comparison.jsonl": choices,
        annotations / "blip2_chatgpt/all_vcr_vg_region_verbalizations.jsonl": mapping,
    }
    for path, rows in written.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        **os.environ,
        "UNIFIED_IMAGE_DIR": str(images),
        "UNIFIED_ANNOT": str(annotations),
        "UNIFIED_INPUT": str(inputs),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def start(launcher, corpus, folder, *options):
    command = [sys.executable, *launcher, "train.py", "--cfg-path", RUN_FILE, "--options", *TINY]
    command += options
    folder.mkdir(exist_ok=True)
    with open(folder / "screen.txt", "a", encoding="utf-8") as screen:
        return subprocess.Popen(
            command, cwd=ROOT, env={**corpus, "LAVIS_OUTPUT_DIR": str(folder)},
            stdout=screen, stderr=screen,
        )  # fmt: skip


def finish(process, folder):
    code = process.wait(timeout=400)
    assert code == 0, (folder / "screen.txt").read_text()[-3000:]


def test_accelerate_launches_it(corpus, tmp_path):
    finish(start(ACCELERATE, corpus, tmp_path / "out", "run.max_iters=2"), tmp_path / "out")
    log = (tmp_path / "out" / RUN_OUTPUT / "run.log").read_text()
    assert "validation" in log and "1 process(es)" in log
    assert (tmp_path / "out" / RUN_OUTPUT / "checkpoint_best" / "model.safetensors").is_file()


def test_two_processes_killed_and_resumed_give_the_same_bytes(corpus, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(TORCHRUN, corpus, whole), whole)

    process = start(TORCHRUN, corpus, killed)
    validated = killed / RUN_OUTPUT / "result"
    deadline = time.monotonic() + 300
    while not list(validated.glob("val_epoch*.json")):
        assert process.poll() is None, (killed / "screen.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    assert not finished(killed)
    finish(start(TORCHRUN, corpus, killed), killed)
    assert "resumed" in (killed / RUN_OUTPUT / "run.log").read_text()

    for name in ("checkpoint_last", "checkpoint_best"):
        weights = [
            (folder / RUN_OUTPUT / name / "model.safetensors").read_bytes()
            for folder in (whole, killed)
        ]
        assert weights[0] == weights[1], name

    # Sherlock's comparison chose the best checkpoint
    lines = [json.loads(line) for line in (whole / RUN_OUTPUT / "log.txt").open() if line[0] == "{"
             and "val_pairwise" in line]  # fmt: skip
    values = [line["val_agg_metrics"] for line in lines]
    assert len(values) == 3 and values == [line["val_pairwise"] for line in lines]
    best = json.loads((whole / RUN_OUTPUT / "checkpoint_best/trainer_state.json").read_text())
    assert best["best"]["metric"] == pytest.approx(max(values))
    assert best["iteration"] == 2 * (values.index(max(values)) + 1)


def finished(folder):
    state = folder / RUN_OUTPUT / "checkpoint_last" / "trainer_state.json"
    return json.loads(state.read_text())["epoch"] == 3
