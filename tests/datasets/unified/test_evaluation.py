"""Every benchmark from its published form to its figures: converters, run files, tiny weights."""

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from launching import jobs_of, run_steps

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "fixtures" / "lskd" / "stage1"
EVAL = ROOT / "lavis" / "projects" / "blip2" / "eval" / "unified_eval"
TINY = [
    "model.image_size=28", "model.num_query_token=8", "model.max_txt_len=64",
    "model.vit.embed_dim=64", "model.vit.depth=3", "model.vit.num_heads=4",
    "model.qformer.hidden_size=48", "model.qformer.num_hidden_layers=4",
    "model.qformer.num_attention_heads=4", "model.qformer.intermediate_size=96",
    "run.device=cpu", "run.num_workers=0", "run.batch_size_eval=4", "run.resamples=50",
]  # fmt: skip
# run file -> (script, its arguments, where the run file looks for records)
BENCHMARKS = {
    "sherlock_comparison": (
        "sherlock", ["{sherlock}", "{answer_key}"],
        "sherlock/unified_sherlock_val_comparison.jsonl",
    ),
    "vcr_qa": ("vcr", ["{vcr}", "--image-dir", "{vcr1images}"], "vcr/unified_vcr_qa_val.jsonl"),
    "vcr_qar": (
        "vcr", ["{vcr}", "--image-dir", "{vcr1images}", "--task", "qar"],
        "vcr/unified_vcr_qar_val.jsonl",
    ),
    "visualcomet_ranking": (
        "visualcomet", ["{visualcomet}", "--image-dir", "{vcr1images}", "--count", "3"],
        "visualcomet/unified_visualcomet_val_ranking.jsonl",
    ),
    "aokvqa_mc": ("aokvqa", ["{aokvqa}"], "aokvqa/unified_aokvqa_val_mc.jsonl"),
    "snli_ve": ("snli_ve", ["{snli_ve}"], "snli_ve/unified_snli_ve_test.jsonl"),
    "v7w_telling": ("visual7w", ["{v7w}"], "v7w/unified_v7w_telling_test.jsonl"),
    "gar_bench": ("gar_bench", ["{gar}"], "gar_bench/unified_gar_bench_vqa.jsonl"),
}  # fmt: skip
IMPORTS = (
    "lavis.models.blip2.stage1",
    "lavis.runners.runner",
    "lavis.tasks.comparison.task",
    "lavis.datasets.lck.contrastive",
)


@pytest.fixture(scope="module")
def world(session_samples, language_models, tmp_path_factory):
    """Convert and evaluate everything once; returns folder, exit statuses and what was said."""
    import torch
    from safetensors.torch import load

    folder = tmp_path_factory.mktemp("evaluation")
    state = load(lzma.open(GOLDEN / "state_dict.safetensors.xz").read())
    torch.save({"model": state}, folder / "checkpoint_best.pth")
    jobs = []
    for script, arguments, records in BENCHMARKS.values():
        given = [argument.format(**vars(session_samples)) for argument in arguments]
        given += ["--output", str(folder / "input" / records)]
        jobs.append(jobs_of(f"scripts/convert_{script}.py", given))

    def evaluate(name, output, *options, size=1):
        arguments = ["--cfg-path", str(EVAL / f"{name}.yaml"), "--options", *TINY]
        arguments += [f"model.pretrained={folder / 'checkpoint_best.pth'}"]
        if not any(option.startswith("model.arch") for option in options):
            arguments.append("model.embed_dim=24")
        arguments += [f"run.output_dir={folder / output}", *options]
        return jobs_of("evaluate.py", arguments, size=size)

    jobs += [evaluate(name, name) for name in BENCHMARKS]
    jobs.append(evaluate("sherlock_comparison", "two", size=2))
    jobs.append(evaluate("sherlock_comparison", "both", "run.score=both"))
    jobs.append(evaluate("sherlock_comparison", "unknown", "run.score=clip"))
    jobs.append(evaluate("vcr_qa", "likelihood", "run.score=likelihood"))
    jobs.append(evaluate("vcr_qa", "critic", "model.arch=blip2_critic"))
    llm = ["model.arch=blip2_llm", f"model.llm_model={language_models['gpt2']}"]
    llm += ["model.load_pretrained=false", "run.score=likelihood"]
    jobs.append(evaluate("vcr_qa", "written", *llm))
    environment = {
        "UNIFIED_IMAGE_DIR": str(session_samples.images),
        "UNIFIED_INPUT": str(folder / "input"),
    }
    codes, said = run_steps(jobs, IMPORTS, folder=folder, environment=environment)
    return folder, codes, said


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_everything_ran(world):
    _, codes, _ = world
    converted, evaluated, rest = codes[:8], codes[8:16], codes[16:]
    # 1: some items are set aside (too few inferences to draw from, no agreed label)
    assert converted == [[0], [0], [0], [1], [0], [1], [0], [0]]
    assert evaluated == [[0]] * 8
    assert rest == [[0, 0], [0], [2], [2], [0], [0]]


@pytest.mark.parametrize(
    ("name", "metric", "records", "chance"),
    [
        ("sherlock_comparison", "pairwise", 2, 0.0),
        ("vcr_qa", "accuracy", 2, 25.0),
        ("vcr_qar", "accuracy", 2, 25.0),
        ("visualcomet_ranking", "recall", 4, None),
        ("aokvqa_mc", "accuracy", 1, 25.0),
        ("snli_ve", "accuracy", 2, 100 / 3),
        ("v7w_telling", "accuracy", 2, 25.0),
        ("gar_bench", "accuracy", 2, 37.5),  # of four options, and of two
    ],
)
def test_figures(world, name, metric, records, chance):
    folder, _, _ = world
    summary = summary_of(folder / name)
    assert (summary["rows"], summary["rejected"]) == (records, 0)
    figures = summary["metrics"][metric]
    assert figures["records"] == records
    assert chance is None or figures["chance"] == pytest.approx(chance)
    rows = json.loads((folder / name / "result" / "test_epochbest.json").read_text())
    if metric == "accuracy":
        right = [row["prediction"] == row["label"] for row in rows]
        assert figures["value"] == pytest.approx(100 * sum(right) / len(right))
    assert all(len(set(row["match_scores"])) > 1 for row in rows)
    if name == "gar_bench":
        by_group = summary["by_group"]
        assert {kind: part["accuracy"]["chance"] for kind, part in by_group.items()} == {
            "color": 25.0,
            "relation": 50.0,
        }
    assert "data:image/jpeg" in (folder / name / "report.html").read_text()


def test_texts_as_the_student_reads_them(world):
    folder, _, _ = world
    rows = json.loads((folder / "vcr_qar" / "result" / "test_epochbest.json").read_text())
    by_name = {row["instance"]: row for row in rows}
    assert by_name["val-0"]["texts"][0] == (
        "question: what is [0] giving to [1] ? answer: a [2] . rationale: [0] holds a [2] ."
    )
    rows = json.loads((folder / "snli_ve" / "result" / "test_epochbest.json").read_text())
    assert rows[0]["texts"][2] == (
        "question: does the image describe the sisters are hugging goodbye.? answer: entailment"
    )


def test_two_processes_write_what_one_does(world):
    folder, _, _ = world
    for file in ("result/test_epochbest.json", "summary.json", "rejects.jsonl"):
        one = (folder / "sherlock_comparison" / file).read_bytes()
        assert (folder / "two" / file).read_bytes() == one, file


def test_the_sum_of_both_scores_ranks_too(world):
    folder, _, _ = world
    rows = [
        json.loads((folder / name / "result" / "test_epochbest.json").read_text())
        for name in ("sherlock_comparison", "both")
    ]
    for one, both in zip(*rows, strict=True):
        added = [b - a for a, b in zip(one["match_scores"], both["match_scores"], strict=True)]
        assert all(-1 <= value <= 1 for value in added) and any(added)  # a cosine


def test_a_critic_and_a_generative_student_rank_too(world):
    folder, _, _ = world
    found = {}
    for name in ("vcr_qa", "critic", "written"):
        rows = json.loads((folder / name / "result" / "test_epochbest.json").read_text())
        assert summary_of(folder / name)["metrics"]["accuracy"]["records"] == 2
        found[name] = [row["match_scores"] for row in rows]
    for student, critic in zip(found["vcr_qa"], found["critic"], strict=True):
        assert student == pytest.approx(critic, abs=1e-5)  # one matching head, the same weights
    assert all(score < 0 for scores in found["written"] for score in scores)  # log-probabilities


def test_wrong_scores_are_refused(world):
    folder, _, said = world
    assert "--options, run.score: 'clip' found; valid: both, itc, itm, letters, likelihood" in said
    assert not (folder / "unknown").exists()  # before anything was built
    assert "run.score: Blip2Stage1 cannot score by likelihood; use itm or itc or both" in said


def test_scripts_join_and_tabulate(world):
    folder, _, _ = world

    def run(script, *arguments):
        command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder)

    done = run("vcr_q2ar.py", "vcr_qa", "vcr_qar", "--output", folder / "q2ar.json")
    assert done.returncode == 0, done.stderr
    assert "2 items in both runs" in done.stdout and "chance 6.25" in done.stdout
    assert json.loads((folder / "q2ar.json").read_text())["both"]["chance"] == 6.25
    done = run(
        "results_table.py", "sherlock=sherlock_comparison", "vcr_qa=vcr_qa", "vcr_qar=vcr_qar",
        "visualcomet=visualcomet_ranking", "gar=gar_bench", "sum:sherlock=both",
        "--format", "markdown",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table, pairs = done.stdout.split("\n\n")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert rows[0][:5] == ["system", "VCR Q->A", "VCR QA->R", "VCR Q->AR", "Sherlock comparison"]
    assert rows[0][-1] == "GAR-Bench-VQA"
    assert rows[2][:5] == ["chance", "25.00", "25.00", "6.25", "0.00"] and rows[2][-1] == "37.50"
    assert rows[-2][0] == "measured" and all("[" in cell for cell in rows[-2][1:6])
    assert rows[-1][0] == "sum"
    assert pairs.splitlines()[2].startswith("| sum - measured | Sherlock comparison | 2 | ")
