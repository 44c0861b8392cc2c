"""Every shipped training run file, in tiny sizes, on two real processes that meet over gloo."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny_vlm import make_vlm

from launching import launcher_environments

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROJECTS = ROOT / "lavis" / "projects"
VIT = [
    "model.image_size=28",
    "model.num_query_token=4",
    "model.vit.embed_dim=32",
    "model.vit.depth=2",
    "model.vit.num_heads=4",
    "model.qformer.hidden_size=32",
    "model.qformer.num_hidden_layers=2",
    "model.qformer.num_attention_heads=4",
    "model.qformer.intermediate_size=64",
    "model.load_pretrained=false",
]
# The quickstart's models are small as they are; their tower's file is not there.
QUICKSTART = ["model.vit.weights=null", "model.load_pretrained=false", "model.vit.input_size=64"]
RUN = ["run.device=cpu", "run.num_workers=0", "run.init_lr=1e-2", "run.test_splits=[]"]
EPOCHS = ["run.max_epoch=2", "run.batch_size_train=2", "run.batch_size_eval=4"]
ITERS = ["run.max_iters=4", "run.iters_per_inner_epoch=2", "run.batch_size_train=2"]
PLACES_ONLY = ["model.grounding.alignment_only=true", "run.valid_splits=[]"]


def critic(data, *options, size=28):
    node = "datasets.unified_vqa_binary"
    return [
        *(f"{node}.vis_processor.{part}.image_size={size}" for part in ("train", "eval")),
        *(
            f"{node}.build_info.annotations.{split}.storage=[{data / 'records.jsonl'}]"
            for split in ("train", "val", "test")
        ),
        f"{node}.build_info.images.storage={data}",
        *EPOCHS,
        *options,
    ]


def student(data, *options):
    node = "datasets.unified_contrastive"
    build = f"{node}.build_info"
    return [
        f"{build}.annotations.train.storage={data / 'records.jsonl'}",
        f"{build}.annotations.val={{storage: {data / 'records.jsonl'}}}",
        f"{build}.images.storage={data}",
        *(f"{node}.vis_processor.{part}.image_size=128" for part in ("train", "eval")),
        *ITERS,
        *options,
    ]


def generative(data, llm, key):
    node = "datasets.unified_vqa_chatgpt"
    return [
        *VIT,
        f"model.{key}={llm}",
        "model.max_output_txt_len=24",
        *(f"{node}.vis_processor.{part}.image_size=28" for part in ("train", "eval")),
        *(
            f"{node}.build_info.annotations.{split}="
            f"{{storage: [{data / 'records.jsonl'}], region_mapping: {data / 'regions.jsonl'}}}"
            for split in ("train", "val")
        ),
        f"{node}.build_info.csv.storage={data}",
        *ITERS,
    ]


def fused(world, kind):
    return [
        f"model.llm={world / kind}",
        "model.fusion.init=random",
        f"model.vision.name={world / 'tower'}",
        f"datasets.cropped_vg.data_dir={world / 'vg'}",
        "datasets.cropped_vg.vis_processor.train.image_size=8",
        *ITERS,
    ]


COMMANDS = {
    "critic": ("blip2/train/critic.yaml", lambda w: critic(w.data, *VIT)),
    "quickstart, places only": (
        "blip2/train/quickstart_pretrain.yaml",
        lambda w: critic(w.data, *QUICKSTART, *PLACES_ONLY, size=128),
    ),
    "quickstart, statements": (
        "blip2/train/quickstart_pretrain.yaml",
        lambda w: critic(w.data, *QUICKSTART, size=128),
    ),
    "quickstart critic": (
        "blip2/train/quickstart_critic.yaml",
        lambda w: critic(w.data, *QUICKSTART, "run.save_frozen=false", size=128),
    ),
    "quickstart student": (
        "blip2/train/quickstart_student.yaml",
        lambda w: student(w.data, *QUICKSTART, "run.save_frozen=false"),
    ),
    "student_t5": ("blip2/train/student_t5.yaml", lambda w: generative(w.data, w.t5, "t5_model")),
    "student_opt": (
        "blip2/train/student_opt.yaml",
        lambda w: generative(w.data, w.opt, "opt_model"),
    ),
    "vision-language critic": (
        "vlm/train/lora_critic.yaml",
        lambda w: [
            f"model.name={w.vlm}",
            "model.max_pixels=10000",
            *(option for option in critic(w.data) if "image_size" not in option),
        ],
    ),
    "bert": ("vlmig/train/bert_cropped_vg.yaml", lambda w: fused(w.world, "bert")),
    "gpt2": ("vlmig/train/gpt2_cropped_vg.yaml", lambda w: fused(w.world, "gpt2")),
}
# Run files that other tests here start on two processes, or that are these with other data.
ELSEWHERE = {
    "blip2/train/unified_vqa_chatgpt_contrastive.yaml": "test_student_launchers.py",
    "vlm/train/lora_student.yaml": "test_lora_training.py",
    "vlmig/train/captioned_images.yaml": "test_caption_training.py",
    "vlmig/train/quickstart_fusion.yaml": "test_caption_training.py",
    "vlmig/train/ft_wiki_laion_220.yaml": "test_caption_training.py",
    "vlmig/train/flat_flags.yaml": "test_caption_training.py",
    "vlmig/train/llama3_8b_cropped_vg.yaml": "test_caption_training.py",
    "blip2/train/critic_synthetic.yaml": "test_documented_training.py",
    "vlmig/train/gemma_2b_cropped_vg.yaml": "test_documented_training.py",
    "vlmig/train/opt_2.7b_cropped_vg.yaml": "test_documented_training.py",
}


class Worlds:
    """Records and models, made once for all commands."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory, language_models):
    sys.path.insert(0, str(HERE.parent / "tasks" / "language_modeling"))
    import caption_run as made

    found = Worlds()
    found.made, found.t5, found.opt = made, language_models["t5"], language_models["opt"]
    found.world = tmp_path_factory.mktemp("world")
    for kind in ("bert", "gpt2", "gemma", "llama"):
        made.make_llm(found.world / kind, kind)
    made.make_llm(
        found.world / "opt", "gpt2"
    )  # the run file's name says which model it was made for
    made.make_tower(found.world / "tower")
    made.make_visual_genome(found.world / "vg", 8)
    found.data = tmp_path_factory.mktemp("records")
    write_records(found.data)
    found.vlm = make_vlm("qwen3_vl", found.world / "vlm")
    yield found
    sys.path.remove(str(HERE.parent / "tasks" / "language_modeling"))


def write_records(folder):
    rng = np.random.default_rng(0)
    records, mapping = [], []
    region = {"name": "0", "boxes": [[4, 4, 30, 28]], "obj_guess": "box"}
    for number in range(8):
        pixels = rng.integers(0, 255, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        mapping.append({"image": f"{number}.png", "region_locations": [region]})
        record = {
            "image": f"{number}.png", "source": "boxes", "index": f"r{number}", "region": [0],
            "region_all": [0], "references": [region], "question": ["What", "is", [0], "?"],
            "answer": [["red", "green"][number % 2]], "rationale": [[0], "is", "red"],
            "label": number // 2 % 2,
        }  # fmt: skip
        if number % 3:  # two of three records say where their words are
            record["word_boxes"] = {"red": [[0.1, 0.1, 0.7, 0.7]], "green": []}
        records.append(record)
    for name, rows in (("records", records), ("regions", mapping)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", COMMANDS)
def test_it_trains_on_two_processes(name, worlds, forks, tmp_path):
    run_file, options = COMMANDS[name]
    argv = ["--cfg-path", str(PROJECTS / run_file), "--options", f"run.output_dir={tmp_path / 'o'}"]
    argv += [*options(worlds), *RUN]
    env = {
        "UNIFIED_IMAGE_DIR": str(worlds.data),
        "UNIFIED_ANNOT": str(worlds.data),
        "LAVIS_OUTPUT_DIR": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    ranks, logs = [], [tmp_path / f"rank-{rank}.log" for rank in range(2)]
    for place, log in zip(launcher_environments(2), logs, strict=True):
        given = (argv, {**place, **env}, str(log))
        ranks.append(forks.Process(target=worlds.made.run_rank, args=given))
        ranks[-1].start()
    for rank in ranks:
        rank.join(150)
        rank.kill()
        rank.join()
    text = "\n".join(log.read_text()[-3000:] for log in logs)
    assert [rank.exitcode for rank in ranks] == [0, 0], text
    assert "find_unused_parameters" not in text, "the model looks for unused weights, and has none"
    weights = load_file(tmp_path / "o" / "checkpoint_last" / "model.safetensors")
    assert weights and all(bool(value.isfinite().all()) for value in weights.values())
    assert json.loads((tmp_path / "o/checkpoint_last/trainer_state.json").read_text())["epoch"] == 2


def test_every_training_run_file_is_started_by_some_test():
    shipped = {str(path.relative_to(PROJECTS)) for path in PROJECTS.glob("*/train/*.yaml")}
    covered = {run_file for run_file, _ in COMMANDS.values()}
    assert shipped == covered | set(ELSEWHERE) and not covered & set(ELSEWHERE)
    assert all((HERE / name).is_file() for name in ELSEWHERE.values())
