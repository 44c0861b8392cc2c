"""Merge order, the seeds' run files, and one clear line for every mistake."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lavis.common.config.loading import load_config, load_model_config
from lavis.common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SEEDS = ROOT / "tests" / "fixtures" / "seed_configs"
SCRIPTS_OWN = ("generate", "verbalize")  # run files of scripts, which their tests load
RUN_FILES = sorted(
    path
    for path in (ROOT / "lavis" / "projects").rglob("*.yaml")
    if path.parent.name not in SCRIPTS_OWN
)

BASE = """
model: {arch: blip2_critic, model_type: pretrain, image_size: 28}
datasets:
  laion_sample_extracted:
    vis_processor: {eval: {name: blip_image_eval, image_size: "${model.image_size}"}}
run: {task: multimodal_classification, output_dir: output/x, test_splits: [test]}
"""


CONTRASTIVE = (
    "train_critic_input_all_vcr_vg_region_verbalizations~chatgpt_1M_filtered_threshold_0.7.jsonl"
)
FILES = (
    f"blip2_chatgpt/lavis_chatgpt_data/{CONTRASTIVE}",
    "blip2_chatgpt/all_vcr_vg_region_verbalizations.jsonl",
    "sherlock/unified_sherlock_val_comparison.jsonl",
    "vcr/unified_vcr_qa_val.jsonl",
    "vcr/unified_vcr_qar_val.jsonl",
    "visualcomet/unified_visualcomet_val_ranking.jsonl",
    "aokvqa/unified_aokvqa_val_mc.jsonl",
    "snli_ve/unified_snli_ve_test.jsonl",
    "v7w/unified_v7w_telling_test.jsonl",
    "gar_bench/unified_gar_bench_vqa.jsonl",
    "train_critic.jsonl",
    "val_critic.jsonl",
    "test_critic.jsonl",
    "train_critic_synthetic.jsonl",
    "val_critic_synthetic.jsonl",
    "output/quickstart/tower.safetensors",
    *(
        f"output/{world}/world/{split}.jsonl"
        for world in ("quickstart", "quickstart_pretrain")
        for split in ("train", "val", "test", "control")
    ),
    "output/quickstart/critic/checkpoint_best/model.safetensors",
    *(f"output/quickstart/loop/{name}.jsonl" for name in ("filtered", "val", "test")),
)


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    """Empty files where the default YAMLs look for data."""
    for name in ("UNIFIED_IMAGE_DIR", "UNIFIED_ANNOT", "UNIFIED_INPUT", "LAVIS_OUTPUT_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    for number in range(10):
        (tmp_path / "laion-samples" / f"{number:06d}").mkdir(parents=True)


@pytest.fixture
def run_file(tmp_path):
    def write(text: str = BASE) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_run_file_we_ship_loads(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    mode = "train" if "train" in path.parts else "evaluate"
    config = load_config(path, mode=mode)
    assert config.model.arch == config.tree["model"]["arch"]


@pytest.mark.parametrize(
    "path",
    [path for path in RUN_FILES if {"unified_eval", "laion"} & set(path.parts)],
    ids=lambda p: p.name,
)
def test_a_vision_language_model_may_take_the_place_of_the_files(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = ["model.arch=vlm_critic", "model.name=org/model", "model.prompt=lskd_accept"]
    config = load_config(path, options)
    assert (config.model.name, config.model.model_type) == ("org/model", "default")
    assert config.model.prompt == "lskd_accept"  # a key of this model's, retired for others
    for section in config.datasets.values():
        assert section.processor("vis", "test")["name"] == "vlm_image"
        assert section.processor("text", "test")["name"] == "base"


@pytest.mark.parametrize("node", [["name=vlm_image", "shows=marks"], ["shows=marks"]])
def test_how_regions_are_shown_is_chosen_on_the_command_line(node):
    path = ROOT / "lavis/projects/blip2/eval/unified_eval/gar_bench.yaml"
    place = "datasets.unified_contrastive.vis_processor.eval"
    options = ["model.arch=vlm_critic", "model.name=x", *(f"{place}.{each}" for each in node)]
    section = load_config(path, options).datasets["unified_contrastive"]
    assert section.processor("vis", "test") == {"name": "vlm_image", "shows": "marks"}
    with pytest.raises(ConfigError, match="unknown option 'image_size' of processor vlm_image"):
        load_config(path, [*options, f"{place}.image_size=224"])


def test_the_seeds_filtering_file_loads_as_it_stands(caplog):
    config = load_config(SEEDS / "laion_critic_ft.yaml")
    assert config.model.image_size == 480
    assert config.model.pretrained.endswith("unified_vqa_critic_v2/checkpoint_best.pth")
    assert config.model.load_finetuned is False  # from the arch's default YAML
    assert config.run.init_lr == 1e-5
    assert config.task.report_metric is False
    assert len(caplog.records) == 1 and "run.wandb_enabled" in caplog.text
    assert "model.prompt" in caplog.text


@pytest.mark.parametrize("arch", ["vlm_critic", "endpoint_critic"])
def test_a_retired_key_is_read_by_a_model_that_has_it(arch, caplog):
    own = {"vlm_critic": {"name": "x"}, "endpoint_critic": {"llm": {"backend": "openai",
           "model": "m"}}}  # fmt: skip
    checked, _ = load_model_config(arch, "default", {**own[arch], "prompt": "vqascore"})
    assert checked.prompt == "vqascore" and not caplog.records


def test_the_seeds_zero_shot_file_uses_the_stage_1_weights():
    config = load_config(SEEDS / "laion_critic_zs.yaml")
    assert config.model.pretrained.endswith("BLIP2/blip2_pretrained.pth")


def test_the_seeds_training_file_loads_as_it_stands(tmp_path):
    config = load_config(SEEDS / "contrastive.yaml", mode="train")
    assert config.run.max_iters == 50000 and isinstance(config.run.max_iters, int)
    assert config.run.output_dir.startswith(str(tmp_path))
    assert config.run.max_epoch is None  # dead under runner_iter
    config.run.check_training()


def test_options_win_and_interpolations_follow_them(run_file):
    config = load_config(run_file(), ["model.image_size=56", "run.seed=7"])
    assert config.model.image_size == 56
    processor = config.tree["datasets"]["laion_sample_extracted"]["vis_processor"]["eval"]
    assert processor["image_size"] == 56
    assert config.run.seed == 7


def test_options_may_alternate_keys_and_values(run_file):
    config = load_config(run_file(), ["model.image_size", "42", "run.seed", "3"])
    assert (config.model.image_size, config.run.seed) == (42, 3)


def test_model_type_on_the_command_line_selects_its_default_yaml(run_file):
    config = load_config(run_file(), ["model.model_type=pretrain_vitL"])
    assert config.model.vit_model == "clip_L"
    assert config.model.image_size == 28  # the run file still wins over the default


def test_load_model_config_merges_overrides():
    checked, preprocess = load_model_config("blip2_critic", "coco", {"image_size": 28})
    assert (checked.image_size, checked.freeze_vit) == (28, False)
    assert preprocess["vis_processor"]["eval"] == {"name": "blip_image_eval", "image_size": 364}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("run.batch_size_evla=4", r"--options, run.batch_size_evla: unknown key; did you mean"),
        (
            "run.keep_abov=[0.5]",
            r"--options, run.keep_abov: unknown key; did you mean 'keep_above'",
        ),
        ("model.arch=blip2_citric", r"model.arch: unknown model 'blip2_citric'; did you mean"),
        (
            "model.model_type=pretrian",
            r"model.model_type: 'pretrian' is not a model_type .*'pretra",
        ),
        ("model.image_size=big", r"model.image_size: 'big' found, expected .*integer"),
        ("model.vit_precision=fp61", r"model.vit_precision: 'fp61' found; did you mean 'fp16'"),
        ("run.task=multimodal_clasification", r"run.task: unknown task .* did you mean"),
        ("run.runner=runner_bse", r"run.runner: unknown runner 'runner_bse'; did you mean"),
        (
            "run.test_splits=[tset]",
            r"run.test_splits: no data set has a split 'tset'; did you mean",
        ),
        (
            "run.batch_size_eval=0",
            r"--options, run.batch_size_eval: 0 found, expected greater than 0",
        ),
        ("modle.image_size=3", r"modle: unknown section; did you mean 'model'"),
        ("datasets.laion_sampel.type=default", r"unknown dataset 'laion_sampel'; did you mean"),
        ("datasets.laion_sample_extracted.type=x", r"'x' is not a type of dataset"),
        (
            "datasets.laion_sample_extracted.build_info.imgaes.storage=/x",
            r"laion_sample_extracted.build_info.imgaes: unknown key; did you mean 'images'",
        ),
        ("run.seed", r"--options: 'run.seed' has no value"),
        ("run.seed=", r"--options: 'run.seed=' has no value; write run.seed=null"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_nearest_name(run_file, option, message):
    with pytest.raises(ConfigError, match=message):
        load_config(run_file(), [option])


@pytest.mark.parametrize("key", ["run.batch_size_eval", "run.init_lr", "model.vit.depth"])
def test_a_truth_value_is_no_number(run_file, key):
    with pytest.raises(ConfigError, match=f"{key}: True found, expected a number"):
        load_config(run_file(), [f"{key}=true"], mode="evaluate")


def test_a_split_is_named_once(run_file):
    with pytest.raises(ConfigError, match=r"test_splits: is .*; name each split once"):
        load_config(run_file(), ["run.test_splits=[test,test]"], mode="evaluate")


def test_every_problem_is_told_at_once(run_file):
    with pytest.raises(ConfigError) as error:
        load_config(run_file(), ["model.imag_size=1", "run.sede=2"])
    assert "model.imag_size" in str(error.value) and "run.sede" in str(error.value)


def test_an_unset_environment_variable_is_named_with_its_key(run_file, monkeypatch):
    monkeypatch.delenv("UNIFIED_IMAGE_DIR")
    with pytest.raises(ConfigError) as error:
        load_config(run_file())
    assert "datasets.laion_sample_extracted.build_info.images.storage" in str(error.value)
    assert "UNIFIED_IMAGE_DIR" in str(error.value)


def test_a_missing_run_file_and_broken_yaml_are_told(run_file, tmp_path):
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(run_file("model: {arch: [}"))


def test_training_names_the_key_it_needs(run_file):
    config = load_config(run_file())
    with pytest.raises(ConfigError, match=r"run.lr_sched: None found; training .* needs"):
        config.run.check_training()


def test_a_misspelt_key_fails_in_seconds_and_without_a_traceback(run_file):
    start = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "evaluate.py", "--cfg-path", str(run_file())),
            *("--options", "run.batch_size_evla=4"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "did you mean 'batch_size_eval'" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 20  # a hang guard; Done-when time is measured, not tested


def test_help_imports_no_heavy_library():
    code = (
        "import sys; sys.argv = ['evaluate.py', '--help']\n"
        "import lavis\nfrom lavis.common.cli import run_front_end\n"
        "try:\n    run_front_end('x', 'evaluate')\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'timm', 'diffusers', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
