"""Former names: the same config and the same identities, one warning each, never both names."""

import json
import logging

import pytest

from lavis.common.config import catalogue as book
from lavis.common.config.loading import load_config, load_model_config
from lavis.common.config.renamed import (
    RENAMED,
    former_names,
    present_flags,
    present_key,
    present_options,
)
from lavis.common.config.sections import load_sections
from lavis.common.errors import ConfigError
from lavis.common.registry import tasks
from lavis.runners.identity import training_identity

NOW = """
model: {arch: late_fusion, model_type: default, llm: gpt2, num_images: 2}
datasets:
  wiki: {data_dir: DATA, with_images: false}
run:
  task: visual_language_modeling
  output_dir: output/x
  train_splits: [train]
  max_epoch: 1
  init_lr: 1.0e-3
  tokenizer: ${model.llm}
  blank_images: true
  images: {generator: folder, options: {root: DATA}, num_images: 1, scorer: null, seed: 4}
  seed: ${run.images.seed}
"""
FORMER = {
    "with_images": "with_pictures",
    "blank_images": "blank_pictures",
    " images:": " pictures:",
    "run.images": "run.pictures",
}


def formerly(text):
    for name, former in FORMER.items():
        text = text.replace(name, former)
    return text


@pytest.fixture
def run_file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text("words of a text\n" * 9)

    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.write_text(text.replace("DATA", str(tmp_path / "data")))
        return path

    return write


def warnings_of(caplog):
    lines = [r.getMessage() for r in caplog.records if "is called" in r.getMessage()]
    caplog.clear()
    return lines


def test_a_run_file_with_former_names_is_the_same_run(run_file, caplog):
    now = load_config(run_file(NOW, "now.yaml"), mode="train")
    assert not warnings_of(caplog)
    then = load_config(run_file(formerly(NOW), "then.yaml"), mode="train")
    told = warnings_of(caplog)
    rest = "the former name works for one more release"
    assert sorted(told) == [
        f"then.yaml, datasets.wiki.with_pictures is called datasets.wiki.with_images now; {rest}",
        f"then.yaml, run.blank_pictures is called run.blank_images now; {rest}",
        f"then.yaml, run.pictures is called run.images now; {rest}",
        f"then.yaml, run.pictures.seed is called run.images.seed now; {rest}",
    ]
    assert then == now and now.run.seed == 4 and now.task.blank_images
    assert not now.datasets["wiki"].with_images


def test_identities_keep_the_names_that_saved_work_was_written_with(run_file):
    config = load_config(run_file(NOW), mode="train")
    trained = training_identity(config.tree, {"d": config.datasets["wiki"].options("train")})
    assert trained["run"]["blank_pictures"] is True and trained["run"]["pictures"]["seed"] == 4
    assert trained["datasets"]["wiki"]["with_pictures"] is False
    assert trained["data"]["d"]["with_pictures"] is False
    assert "images" not in trained["run"] and "with_images" not in json.dumps(trained)


# What was written before the keys had other names, to the byte.
QUESTIONS = (
    '{"tokenizer": "gpt2", "pictures_per": "prompt", "columns": ["text", "pictures"], '
    '"protocols": ["released", "corrected"], "best_of": null, "max_tokens": null, '
    '"long_texts": "reject", "max_new_tokens": 50, "seed": 0, "pictures": {"generator": "folder", '
    '"options": {}, "num_images": 2, "prompt_rule": "sentences", "anchor_words": 70, "seed": 0, '
    '"scorer": null, "clip_model": "openai/clip-vit-base-patch32", "clip_compat": null, '
    '"stored_size": null, "stored_format": "webp", "skip_when_certain": null}}'
)


class NoImages:
    def fingerprint(self):
        return {}


def test_the_identity_of_asked_questions_is_the_same_to_the_byte():
    cls = tasks.get("visual_questions")
    task = cls.__new__(cls)
    task.images = NoImages()
    task.config = cls.config_class(
        tokenizer="gpt2",
        columns=["text", "images"],
        images_per="prompt",
        images={"generator": "folder", "num_images": 2, "scorer": None},
    )
    assert json.dumps(task.identity()) == QUESTIONS


def test_former_values_and_items_of_options(run_file, caplog):
    text = NOW.replace("${run.images.seed}", "1").replace("blank_images: true", "")
    options = [
        "run.pictures.seed=7",
        "run.pictures.stored_format=png",
        "run.images={anchor_words: 3}",
    ]
    config = load_config(run_file(text), options[:2], mode="train")
    assert (config.task.images.seed, config.task.images.stored_format) == (7, "png")
    assert [line.split(" is called")[0] for line in warnings_of(caplog)] == [
        "--options, run.pictures"
    ]
    both = "--options, run.pictures: run.images, its name now, is given too; keep that"
    with pytest.raises(ConfigError, match=both):
        load_config(run_file(text), options, mode="train")
    assert present_options({"run": {"columns": ["text", "pictures"]}}) == {
        "run": {"columns": ["text", "images"]}
    }
    assert present_options({"datasets": {"a": {"image_id": "picture"}}}, "a.yaml") == {
        "datasets": {"a": {"image_id": "image"}}
    }
    assert [line.split(" now")[0] for line in warnings_of(caplog)] == [
        "run.columns=pictures is called run.columns=images",
        "a.yaml, datasets.a.image_id=picture is called datasets.a.image_id=image",
    ]


def test_a_run_file_with_both_names_is_refused(run_file):
    text = NOW + "  blank_pictures: false\n"
    both = "run.yaml, run.blank_pictures: run.blank_images, its name now, is given too; keep that"
    with pytest.raises(ConfigError, match=f"^{both}$"):
        load_config(run_file(text), mode="train")


def test_run_files_of_scripts(tmp_path, caplog):
    path = tmp_path / "verbalize.yaml"
    path.write_text(
        f"""
pictures: {{root: {tmp_path}}}
stages:
  mine:
    type: captions
    writer:
      type: client
      client: {{backend: openai, model: m, picture_tokens: {{rule: openai_tiles, model: gpt-4o}}}}
run: {{output_dir: {tmp_path / "out"}}}
"""
    )
    config = load_sections(path, ["pictures.limit=3"], book.command_sections("verbalize"))
    assert config["images"].root == str(tmp_path) and config["images"].limit == 3
    client = config["stages"]["mine"].writer.client
    assert client["image_token_rule"] == {"rule": "openai_tiles", "model": "gpt-4o"}
    assert [line.split(" now")[0] for line in warnings_of(caplog)] == [
        "verbalize.yaml, pictures is called images",
        "verbalize.yaml, stages.mine.writer.client.picture_tokens is called "
        "stages.mine.writer.client.image_token_rule",
        "--options, pictures is called images",
    ]


def test_models_take_former_names(caplog):
    config, _ = load_model_config("blip2", "pretrain", {"same_picture": "masked"})
    assert config.same_image == "masked" and len(warnings_of(caplog)) == 1


def test_flags_of_scripts(caplog):
    caplog.set_level(logging.WARNING)
    assert present_flags(["x", "--picture-source=a", "--name", "b"]) == [
        "x", "--image-source=a", "--name", "b",
    ]  # fmt: skip
    assert warnings_of(caplog) == [
        "--picture-source is called --image-source now; the former name works for one more release"
    ]
    both = "--picture-source: --image-source, its name now, is given too; keep that"
    with pytest.raises(ConfigError, match=both):
        present_flags(["--image-source", "a", "--picture-source", "b"])


def test_each_former_key_leads_to_an_option_and_back():
    known = {each.key for each in book.options()}
    for former in RENAMED:
        if former.startswith(("picture", "stages")):
            continue  # a section, arguments of another program, a client's own mapping
        now = present_key(former.replace("*", "wiki"))
        assert now in known and "picture" not in now
        section, _, name = now.rpartition(".")
        assert former_names({name: 1}, section) == {former.rpartition(".")[2]: 1}
        assert book.explain(former.replace("*", "wiki")).endswith(f": called {now} now")
    assert present_key("run.images.seed") == "run.images.seed"
