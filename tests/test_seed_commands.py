"""Every command line of both published READMEs runs as written: its files and flags exist."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from pprint import pformat

import pytest
import yaml

from lavis.common import cli
from lavis.common.config.flags import released_flags
from lavis.datasets import read_frame

ROOT = Path(__file__).resolve().parents[1]
VLMIG = ROOT / "projects" / "vlmig"
LLAMA = "--model_name meta-llama/Meta-Llama-3-8B"
TRAINED = "--pretrained_model output/llama3/ft_wiki_laion_220_2 --generate_images True"

# LSKD: from the root of a clone.
LSKD_COMMANDS = [
    "torchrun --nproc_per_node=4 evaluate.py --cfg-path "
    "lavis/projects/blip2/eval/laion/laion_sample_critic_ft_filtering.yaml "
    "--options run.output_dir=output",
    "torchrun --nproc_per_node=4 evaluate.py --cfg-path "
    "lavis/projects/blip2/eval/laion/laion_sample_critic_ft_filtering_zs.yaml "
    "--options run.output_dir=output",
    "torchrun --nproc_per_node=4 train.py --cfg-path "
    "lavis/projects/blip2/train/unified_vqa_chatgpt_contrastive.yaml "
    "--options run.output_dir=output",
    *(
        "torchrun --nproc_per_node=4 evaluate.py --cfg-path "
        f"lavis/projects/blip2/eval/unified_eval/{name}.yaml "
        "--options model.pretrained=checkpoint_best.pth run.output_dir=output"
        for name in ("sherlock_comparison", "vcr_qa", "vcr_qar", "visualcomet_ranking")
    ),
]
# vLMIG, and LaMI's one script: from projects/vlmig.
VLMIG_COMMANDS = [
    "accelerate launch train.py --run_name test --dataset_name cropped_vg "
    "--model_name_or_path meta-llama/Meta-Llama-3-8B --output_dir output/llama3 "
    "--report_to wandb --per_device_train_batch_size 64 --num_train_epochs 1 --run_bf16 "
    "--learning_rate 5e-4 --with_tracking",
    f"python3 eval_scripts/imagenetVC.py {LLAMA} --run_name llama3_imagenetvc {TRAINED} --k 10",
    f"python3 eval_scripts/commonsenseQA.py {LLAMA} {TRAINED} --k 10 --testset piqa",
    f"python3 eval_scripts/squad.py {LLAMA} {TRAINED} --k 5",
    f"python3 eval_scripts/quac.py {LLAMA} {TRAINED} --k 10",
    "python3 eval_scripts/quac.py",
    f"python3 eval_scripts/boolq.py {LLAMA} {TRAINED} --k 10",
    "python3 eval_scripts/boolq.py",
    f"python3 eval_scripts/eval.py --task boolq {LLAMA} --generate_images --k 10",
]
# What the run files look for below UNIFIED_ANNOT and UNIFIED_INPUT.
DATA = [
    "blip2_chatgpt/lavis_chatgpt_data/train_critic_input_all_vcr_vg_region_verbalizations~"
    "chatgpt_1M_filtered_threshold_0.7.jsonl",
    "blip2_chatgpt/all_vcr_vg_region_verbalizations.jsonl",
    "sherlock/unified_sherlock_val_comparison.jsonl",
    "vcr/unified_vcr_qa_val.jsonl",
    "vcr/unified_vcr_qar_val.jsonl",
    "visualcomet/unified_visualcomet_val_ranking.jsonl",
]
UNIFIED = ("IMAGE_DIR", "ANNOT", "INPUT")
SCRIPTS = ["imagenetVC", "commonsenseQA", "squad", "quac", "boolq", "eval"]


def script_and_flags(command: str) -> tuple[str, list[str]]:
    """Leave out the launcher and its own flags."""
    words = shlex.split(command)
    place = next(n for n, word in enumerate(words) if word.endswith(".py"))
    return words[place], words[place + 1 :]


def resolved(folder: Path, command: str, cwd: Path) -> dict:
    """Return the config that the command's own script prints, run from `cwd`."""
    script, flags = script_and_flags(command)
    assert (folder / script).is_file()
    done = subprocess.run(
        [sys.executable, str(folder / script), *flags, "--print-config"],
        cwd=cwd,
        env={**os.environ, **{f"UNIFIED_{name}": str(cwd) for name in UNIFIED}},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture
def cwd(tmp_path):
    (tmp_path / "output" / "llama3").mkdir(parents=True)
    (tmp_path / "output" / "llama3" / "ft_wiki_laion_220_2.bin").touch()
    (tmp_path / "checkpoint_best.pth").touch()
    for number in range(10):
        (tmp_path / "laion-samples" / f"{number:06d}").mkdir(parents=True)
    for name in DATA:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("command", LSKD_COMMANDS, ids=lambda c: c.split("/")[-1].split(".")[0])
def test_lskd_commands(command, cwd):
    script, flags = script_and_flags(command)
    args = cli.parse_args("", flags, script.removesuffix(".py"))
    assert (ROOT / args.cfg_path).is_file()
    absolute = command.replace("lavis/projects", str(ROOT / "lavis/projects"))
    config = resolved(ROOT, absolute, cwd)
    assert config["run"]["output_dir"] == "output"
    assert config["model"]["arch"] in ("blip2", "blip2_critic")
    has_critic = "unified_vqa_critic_v2" in config["model"].get("pretrained", "")
    assert has_critic == ("ft_filtering.yaml" in command)


@pytest.mark.parametrize("command", VLMIG_COMMANDS)
def test_vlmig_commands(command, cwd):
    config = resolved(VLMIG, command, cwd)
    script, flags = script_and_flags(command)
    if script == "train.py":
        assert config["run"]["output_dir"] == "output/llama3/test"
        assert config["model"]["llm"] == "meta-llama/Meta-Llama-3-8B"
        return
    assert config["run"]["task"] == "visual_questions"
    count = int(flags[flags.index("--k") + 1]) if "--k" in flags else 0
    llm = "meta-llama/Meta-Llama-3-8B" if flags else "gpt2"
    assert (config["model"]["llm"], config["model"]["num_images"]) == (llm, count)
    if TRAINED in command:
        assert config["model"]["pretrained"] == "output/llama3/ft_wiki_laion_220_2"


def test_defaults_of_the_released_scripts(cwd):
    def short(script: str) -> tuple[str, int, str]:
        config = resolved(VLMIG, f"python3 eval_scripts/{script}", cwd)
        model, run = config["model"], config["run"]
        return model["llm"], model["num_images"], run["output_dir"]

    assert short("imagenetVC.py") == ("gpt2", 0, "output/results/test/imagenetvc")
    llama = ("meta-llama/Meta-Llama-3-8B", 5, "output/results/meta-llama_Meta-Llama-3-8B/squad")
    assert short("squad.py --generate_images True") == llama
    assert short("boolq.py --generate_images")[1] == 10
    assert short("commonsenseQA.py --testset hs")[2] == "output/results/run/hellaswag"


def test_data_of_a_released_clone_are_taken_from_there(cwd):
    (cwd / "evaluation_data" / "imagenetvc").mkdir(parents=True)
    benchmark = "eval_scripts/imagenetVC.py"
    found = resolved(VLMIG, benchmark, cwd)["datasets"]["benchmark"]
    assert found["data_dir"] == "evaluation_data/imagenetvc"
    (cwd / "own").mkdir()
    found = resolved(VLMIG, f"{benchmark} --imagenetvc_dir own", cwd)["datasets"]["benchmark"]
    assert found["data_dir"] == "own"
    assert not resolved(VLMIG, "eval_scripts/boolq.py", cwd)["datasets"]["benchmark"]["data_dir"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_from_the_folder_of_the_project(name):
    done = subprocess.run(
        [sys.executable, f"eval_scripts/{name}.py", "--help"],
        cwd=VLMIG,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"--{flag}" in done.stdout for flag in released_flags("evaluate"))


def test_a_record_is_shown_by_the_published_snippet():
    df = read_frame(str(ROOT / "tests/fixtures/lskd/filter/records.jsonl"))
    shown = pformat(df.iloc[1])
    assert "chatgpt_region_any_v4_people-2000" in shown
    assert [4] in df.iloc[0]["question"]  # nested ids, as numbers
    assert df.iloc[1]["region"] == ["2", "0"]


def test_readmes_name_what_the_commands_are_called():
    text = (ROOT / "README.md").read_text() + (VLMIG / "README.md").read_text()
    for name in SCRIPTS:
        assert f"eval_scripts/{name}.py" in text
    assert "laion_sample_critic_ft_filtering_zs.yaml" in text
    assert "df = read_frame(path)" in text and "pprint(df.iloc[1])" in text
