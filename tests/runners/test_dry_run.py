"""A dry run counts what the run itself reads, for a local model exactly, and writes nothing."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_vlm import make_vlm, skip_absent

from launching import ROOT
from lavis.common.cli import build_runner, run_front_end
from lavis.common.config.loading import load_config
from lavis.common.errors import ConfigError
from lavis.runners import dry_run
from lavis.runners.dry_run import DryRun

RUN = ROOT / "lavis" / "projects" / "vlm" / "eval" / "filtering.yaml"
BLIP2 = "lavis/projects/blip2/eval/lck/critic_filtering.yaml"
NODE = "datasets.unified_vqa_binary.build_info"


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    """Return the folder of a family's tiny model, made once."""
    made = {}

    def folder(family):
        skip_absent(family)
        if family not in made:
            made[family] = make_vlm(family, tmp_path_factory.mktemp("vlm") / family)
        return made[family]

    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four images with three texts each, and one record without its image."""
    folder = tmp_path_factory.mktemp("corpus")
    region = {"name": "0", "boxes": [[8, 8, 30, 30]]}
    with open(folder / "records.jsonl", "w") as file:
        for number in range(13):
            record = {
                "image": f"{number // 3}.png", "index": str(number), "region": [0],
                "references": [region], "question": ["what", "is", [0], "?"],
                "answer": ["thing"] * (1 + number % 3), "rationale": [[0], "is", "there"],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    for number in range(4):
        Image.new("RGB", (60 + 40 * number, 90), (60 * number, 90, 200)).save(
            folder / f"{number}.png"
        )
    return folder


@pytest.fixture
def options(tmp_path, corpus, vlm_folder):
    def make(*more, family="qwen2_5_vl"):
        return [
            f"model.name={vlm_folder(family)}",
            f"{NODE}.annotations.test.storage={corpus / 'records.jsonl'}",
            f"{NODE}.images.storage={corpus}", f"run.output_dir={tmp_path / 'out'}",
            "run.num_workers=0", "run.batch_size_eval=4", "run.device=cpu", *more,
        ]  # fmt: skip

    return make


def estimate(options, capsys, *flags):
    status = run_front_end(
        "", "evaluate", ["--cfg-path", str(RUN), "--options", *options, "--dry-run", *flags]
    )
    assert status == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "paligemma"])
def test_the_tokens_are_those_that_the_run_reads(options, capsys, tmp_path, family):
    figures = estimate(options(family=family), capsys)["test"]
    assert not (tmp_path / "out").exists()
    assert figures["rows"] == figures["rows_read"] == 13
    assert (figures["images"], figures["views"], figures["texts"]) == (4, 4, 12)
    assert figures["set_aside"] == {"missing image": 1}
    runner = build_runner(load_config(RUN, options("run.report_traces=0", family=family)))
    runner.evaluate()
    assert figures["tokens"] == runner.model.reader.tokens
    assert figures["passes"] == sum(runner.model.reader.passes.values())
    assert "minutes" not in figures


def test_shared_beginnings_count_once(options, capsys):
    shared = estimate(options(), capsys)["test"]
    alone = estimate(options("model.share_prefix=false", "model.max_texts_per_pass=1"), capsys)
    assert shared["prompt_tokens"] == alone["test"]["prompt_tokens"] == alone["test"]["tokens"]
    assert shared["tokens"] < shared["prompt_tokens"]


def test_minutes_are_tokens_by_speed(options, capsys):
    figures = estimate(options(), capsys, "--tokens-per-second", "10")["test"]
    assert figures["minutes"] == pytest.approx(figures["tokens"] / 600, abs=0.01)


def test_a_part_of_the_units_stands_for_all(options, capsys, monkeypatch):
    whole = estimate(options(), capsys)["test"]
    monkeypatch.setattr(dry_run, "SAMPLE", 6)
    part = estimate(options(), capsys)["test"]
    assert part["rows_read"] < 13 and part["rows"] == 13
    assert part["tokens"] == pytest.approx(whole["tokens"], rel=0.4)


def test_other_models_and_wrong_speeds_are_refused(options, capsys):
    arguments = ["--cfg-path", str(RUN), "--dry-run", "--options"]
    blip2 = [option for option in options() if not option.startswith("model.")]
    assert (
        run_front_end("", "evaluate", ["--cfg-path", BLIP2, "--dry-run", "--options", *blip2]) == 2
    )
    assert "--dry-run: model.arch blip2_critic" in capsys.readouterr().err
    for speed in ("0", "-3", "nan", "fast"):
        with pytest.raises(SystemExit):
            run_front_end("", "evaluate", [*arguments, *options(), f"--tokens-per-second={speed}"])
        assert "tokens-per-second" in capsys.readouterr().err


class Plan:
    """Units of `size` rows."""

    def __init__(self, count, size):
        self.order = torch.arange(count).numpy()
        self.size = size

    def __len__(self):
        return -(-len(self.order) // self.size)

    def rows(self, unit):
        return self.order[unit * self.size : (unit + 1) * self.size]


@pytest.mark.parametrize(
    ("count", "size", "units"),
    [(0, 4, 0), (3, 4, 1), (400, 4, 100), (4000, 10, 40), (9000, 900, 1)],
)
def test_units_of_the_sample_are_spread_evenly(count, size, units):
    chosen = list(dry_run._sample(Plan(count, size)))
    assert len(chosen) == units == len(set(chosen))
    assert all(0 <= unit < len(Plan(count, size)) for unit in chosen)


def test_a_split_that_is_not_there_is_named():
    config = SimpleNamespace(run=SimpleNamespace(test_splits=["tset"]))
    with pytest.raises(ConfigError, match="no data set has split 'tset'; did you mean 'test'"):
        DryRun(config, None, None, {"lck": {"test": None}}).estimate()
