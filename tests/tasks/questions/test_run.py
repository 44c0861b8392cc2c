"""`evaluate.py` on small local files, from flags to result files, and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lavis.common import cli
from lavis.tasks.questions.images import QuestionImages

SET = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval"
PIQA = {"goal": "Warm soup.", "sol1": "Use a flask.", "sol2": "Use a plate.", "label": 0}


@pytest.fixture
def options(tmp_path):
    tower, images = tmp_path / "tower", tmp_path / "pictures"
    tower.mkdir()
    images.mkdir()
    (tower / "config.json").write_text((SET / "vision_config.json").read_text())
    Image.new("RGB", (40, 40), (200, 30, 30)).save(images / "a.png")
    Image.new("RGB", (40, 40), (30, 30, 200)).save(images / "b.png")
    listed = [{"prompt": p, "images": ["a.png", "b.png"]} for p in ("Is it red?", "Is it old?")]
    lines = "".join(json.dumps(entry) + "\n" for entry in listed)
    (tmp_path / "pictures.jsonl").write_text(lines)
    return [
        "model.llm_weights=config",
        f"model.vision.name={tower}",
        "model.vision.weights=config",
        "datasets.benchmark.vis_processor.eval.image_size=32",
        f"run.images.cache_dir={tmp_path / 'cache'}",
        "run.images.generator=folder",
        f"run.images.options.root={images}",
        f"run.images.options.manifest={tmp_path / 'pictures.jsonl'}",
        "run.images.scorer=null",
        "run.device=cpu",
        "run.resamples=20",
        "run.max_tokens=150",
        "run.long_texts=cut",
        "run.max_new_tokens=3",
    ]


def run(tmp_path, options, *flags):
    argv = ["--model_name", str(SET), "--pretrained_model", str(SET / "model.safetensors")]
    argv += ["--run_name", "tiny", "--output_dir", str(tmp_path / "out")]
    argv += ["--data_dir", str(tmp_path), *flags, "--options", *options]
    status = cli.run_front_end("", "evaluate", argv)
    names = [flag for flag in flags if (tmp_path / "out/results/tiny" / flag).is_dir()]
    folder = tmp_path / "out/results/tiny" / (names[0] if names else "none")
    return status, folder


def test_a_run_is_scored_once_and_refuses_another_ones_scores(
    tmp_path, options, monkeypatch, capsys
):
    lines = "category,question,answer\nx,Is it red?,yes\ny,Is it old?,no\nz,,no\n"
    (tmp_path / "component.csv").write_text(lines)
    options += ["datasets.benchmark.subsets=[component]"]
    flags = ["--task", "imagenetvc", "--generate_images", "True", "--k", "2"]
    flags.append("--no_clip_rescaling")
    status, folder = run(tmp_path, options, *flags)
    assert status == 0
    results = json.loads((folder / "results.json").read_text())
    assert (results["scored"], results["rejected"], results["num_images"]) == (2, 1, 2)
    columns = results["groups"]["component"]["rules"]["first_token"]
    assert list(columns) == ["text", "single", "pictures", "best_of_n"]
    rows = [json.loads(x) for x in (folder / "result/test_epochbest.jsonl").open()]
    assert [len(row["pictures"][0]) for row in rows] == [2, 2]
    assert rows[0]["pictures"][0][0]["weight"] == 0.25  # 0.5 of 2 images
    assert "data:image/jpeg" in (folder / "report.html").read_text()

    def refuse(*args):
        raise AssertionError("nothing is left to prepare")

    monkeypatch.setattr(QuestionImages, "prepare", refuse)
    assert run(tmp_path, options, *flags)[0] == 0
    assert json.loads((folder / "results.json").read_text()) == results
    options.append("run.columns=[text,images]")
    assert run(tmp_path, options, *flags)[0] == 2
    assert "task.columns" in capsys.readouterr().err


def test_text_only_runs_of_the_other_kinds(tmp_path, options):
    (tmp_path / "valid.jsonl").write_text(json.dumps(PIQA) + "\n")
    record = {"question": "is it old", "answer": True, "passage": "Rome is old."}
    (tmp_path / "dev.jsonl").write_text(json.dumps(record) + "\n")
    flat = {"id": "1", "title": "T", "context": "Rome is old.", "answers": {"text": ["Rome"]}}
    asked = [{**flat, "question": q} for q in ("What is old?", "What is it?")]
    (tmp_path / "squad.jsonl").write_text("".join(json.dumps(a) + "\n" for a in asked))
    for flags, rule in (
        (["--task", "commonsense", "--testset", "piqa"], "sequence_loss"),
        (["--task", "boolq", "--generate_images", "False"], "first_token"),
        (["--task", "squad"], "exact_match"),
    ):
        status, folder = run(tmp_path, options, *flags)
        assert status == 0
        results = json.loads((folder / "results.json").read_text())
        assert (results["main_rule"], results["scored"]) == (rule, 1)
        (group,) = results["groups"].values()
        assert list(group["rules"][rule]) == ["text", "best_of_n"]
