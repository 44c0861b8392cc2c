"""The classification task: the released score file, filtered corpora, rejects, report."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from page_checks import check_report
from safetensors.torch import load

from lavis.common.errors import DataError
from lavis.datasets.rows import Row
from lavis.tasks.base import UnitBatch
from lavis.tasks.config import ClassificationConfig
from lavis.tasks.filtering.task import MultimodalClassificationTask as Task

GOLDEN = Path(__file__).parents[2] / "fixtures" / "lskd"


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory, run):
    """Output of the 14 golden records through the real data set, critic, journal and task."""
    from lavis.datasets.builders import build_dataset
    from lavis.datasets.config import LckConfig
    from lavis.models.blip2.config import CriticConfig, QFormerConfig, VitConfig
    from lavis.models.blip2.critic import Blip2Critic

    config = CriticConfig(
        model_type="pretrain",
        load_pretrained=False,
        image_size=28,
        num_query_token=8,
        max_txt_len=128,
        vit=VitConfig(embed_dim=64, depth=3, num_heads=4),
        qformer=QFormerConfig(
            hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96
        ),
    )
    torch.manual_seed(0)
    model = Blip2Critic(config)
    state = load(lzma.open(GOLDEN / "critic" / "state_dict.safetensors.xz").read())
    model.load_state(state, strict_frozen=True)
    vis = {"name": "blip_image_eval", "image_size": 28}
    text = {"name": "blip_unified_vqa", "prompt": ""}
    folder = GOLDEN / "filter"
    section = LckConfig(
        build_info={
            "annotations": {"test": {"storage": str(folder / "records.jsonl")}},
            "images": {"storage": str(folder / "images")},
        },
        vis_processor={"eval": vis},
        text_processor={"eval": text},
    )
    dataset = build_dataset("unified_vqa_binary", section, "test")
    output = tmp_path_factory.mktemp("golden")
    task = Task(ClassificationConfig(report_examples=8))
    run(task, dataset, model.eval(), output)
    return output


def test_the_score_file_is_the_released_one(golden_folder):
    rows = json.loads((golden_folder / "result" / "test_epochbest.json").read_text())
    expected = json.loads((GOLDEN / "filter" / "reference_result_list.json").read_text())
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row.pop("score") == pytest.approx(wanted.pop("score"), abs=1e-5)
        assert row == wanted
    lines = read_lines(golden_folder / "result" / "test_epochbest.jsonl")
    table = pq.read_table(golden_folder / "result" / "test_epochbest.parquet").to_pylist()
    assert [line["index"] for line in lines] == list(range(14))
    assert table == lines


def test_the_kept_records_are_the_released_ones(golden_folder):
    kept = json.loads((GOLDEN / "filter" / "expected.json").read_text())["kept_at_threshold"]
    records = {r["index"]: r for r in read_lines(GOLDEN / "filter" / "records.jsonl")}
    lines = read_lines(golden_folder / "result" / "test_epochbest.jsonl")
    scores = {line["instance"]: line["score"] for line in lines}
    assert set(kept) == {"0.5", "0.7", "0.8"}
    for threshold, names in kept.items():
        path = golden_folder / "kept" / f"test_epochbest_filtered_threshold_{threshold}.jsonl"
        found = read_lines(path)
        assert [record["index"] for record in found] == names
        for record in found:
            wanted = {**records[record["index"]], "prediction": scores[record["index"]]}
            assert record == wanted


def test_summary_and_page_of_the_golden_records(golden_folder):
    summary = json.loads((golden_folder / "summary.json").read_text())
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (14, 14, 0)
    assert summary["kept"]["0.5"]["rows"] == 9
    assert sum(part["rows"] for part in summary["by_source"].values()) == 14
    assert list(summary["by_regions"]) == sorted(summary["by_regions"], key=int)
    assert "metrics" not in summary and not (golden_folder / "pr_curve.png").exists()
    page = (golden_folder / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8
    assert page.count("data:image/png;base64,") == 1
    assert page.count('class="lv-badge" data-region="0"') == 7  # one record has no region
    assert page.count('class="lv-chip" data-region="0"') >= 8 and "http" not in page
    assert (golden_folder / "score_histogram.png").read_bytes().startswith(b"\x89PNG")


MIXED = [
    ("cat", "0.9 a"),
    None,
    ("dog", "0.2 b <script>"),
    ("broken", "0.5 c"),
    ("cat", "0.75 d"),
    ("broken", "0.6 e"),
    ("owl", "nan f"),
]


def test_bad_rows_are_set_aside_and_each_image_is_read_once(
    list_dataset, rule_model, run, tmp_path
):
    dataset = list_dataset(MIXED)
    metrics = run(Task(ClassificationConfig()), dataset, rule_model, tmp_path)
    assert (metrics["agg_metrics"], metrics["scored"], metrics["rejected"]) == (0.0, 3, 4)
    assert dataset.decoded.count("cat") == 1 and dataset.decoded.count("broken") == 1
    rows = json.loads((tmp_path / "result" / "test_epochbest.json").read_text())
    assert [row["index"] for row in rows] == [0, 2, 4]
    assert list(rows[0]) == ["text", "instance", "index", "prediction", "score"]
    assert [row["prediction"] for row in rows] == [1, 0, 1]
    assert read_lines(tmp_path / "rejects.jsonl") == [
        {"row": 1, "file": "list.jsonl", "line": 2, "reason": "malformed line: no pair"},
        {"row": 3, "file": "list.jsonl", "line": 4, "reason": "broken image: broken.png"},
        {"row": 5, "file": "list.jsonl", "line": 6, "reason": "broken image: broken.png"},
        {"row": 6, "file": "list.jsonl", "line": 7, "reason": "score is not a number: nan"},
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rejected_by_reason"] == {
        "broken image": 2,
        "malformed line": 1,
        "score is not a number": 1,
    }
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page and "<script>" not in page


def test_labels_give_metrics_slices_and_the_released_line(list_dataset, rule_model, run, tmp_path):
    scores, labels = [0.9, 0.8, 0.6, 0.4, 0.3, 0.1], [1, 0, 1, 1, 0, 0]
    pairs = [(f"p{n}", f"{score} text {n}") for n, score in enumerate(scores)]
    records = [{"source": "ab"[n % 2], "kind": "colour", "region": [1] * n} for n in range(6)]
    dataset = list_dataset(pairs, records, labels)
    metrics = run(Task(ClassificationConfig(keep_above=[0.35])), dataset, rule_model, tmp_path)
    assert metrics["agg_metrics"] == metrics["acc"] == pytest.approx(4 / 6)
    assert metrics["auc"] == pytest.approx(7 / 9)
    line = json.loads((tmp_path / "evaluate.txt").read_text())["test"]
    assert line == metrics
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["metrics"]["at_threshold"]["0.35"]["precision"] == 0.75
    assert summary["by_source"]["a"]["auc"] == pytest.approx(1.0)  # 0.9 and 0.6 over 0.3
    assert summary["by_kind"]["colour"]["kept"] == {"0.35": 4}
    assert list(summary["by_regions"]) == ["0", "1", "2", "3", "4", "5"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert all(word in page for word in ("By kind", "Threshold sweep", "label: accept"))
    assert len(set(re.findall(r'alt="row (\d+)"', page))) == 6


def test_while_training_only_the_score_file_is_written(list_dataset, rule_model, run, tmp_path):
    dataset = list_dataset([("p", "0.9 x")], labels=[1], split="val")
    task = Task(ClassificationConfig())
    metrics = run(task, dataset, rule_model, tmp_path, report=False)
    assert metrics["agg_metrics"] == 1.0
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    files = {file for file in files if not file.startswith("journal")}
    assert files == {
        "evaluate.txt",
        "result/val_epochbest.json",
        "result/val_epochbest.jsonl",
    }


@pytest.mark.parametrize("fitted", ["val", "train"])
def test_calibration_is_fitted_on_one_split_and_applied_to_others(
    list_dataset, rule_model, run, tmp_path, fitted
):
    config = ClassificationConfig(calibrate="isotonic", calibrate_on=fitted, keep_above=[0.5])
    task = Task(config)
    scores = [0.6, 0.7, 0.8, 0.9]
    pairs = [(f"p{n}", f"{score} t") for n, score in enumerate(scores)]
    test = list_dataset(pairs, labels=[0, 0, 1, 1])
    with pytest.raises(DataError, match=rf"run\.test_splits=\[{fitted},test\]"):
        run(task, test, rule_model, tmp_path / "no")
    for split in (fitted, "test"):
        dataset = list_dataset(pairs, labels=[0, 0, 1, 1], split=split)
        run(task, dataset, rule_model, tmp_path)
    fit = json.loads((tmp_path / f"{fitted}_summary.json").read_text())["calibration"]
    # each score in a bin of its own: (0.6 + 0.7 + 0.2 + 0.1) / 4
    assert fit["ece_before"] == pytest.approx(0.4, abs=1e-6) and fit["ece_after"] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["calibration"]["applied"] and summary["kept"]["0.5"]["rows"] == 2
    rows = read_lines(tmp_path / "result" / "test_epochbest.jsonl")
    assert [row["calibrated_score"] for row in rows] == [0, 0, 1, 1]
    assert rows[0]["score"] == pytest.approx(0.6)


def test_a_missing_row_is_an_error_that_says_what_to_do(list_dataset, tmp_path):
    class Nothing:
        def iterate_raw(self):
            return iter([])

    with pytest.raises(DataError, match="1 of 1 rows were never scored; run the same command"):
        Task(ClassificationConfig()).finish(
            Nothing(), list_dataset([("p", "0.1")]), tmp_path, "test_epochbest"
        )
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_above": [1.5]}, "between 0 and 1"),
        ({"keep_above": [0.5, 0.5]}, "each threshold once"),
        ({"report_examples": -1}, "use 0 for none"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ClassificationConfig(**options)


def test_scored_rows_whose_rationale_says_nothing_are_counted(
    list_dataset, rule_model, run, tmp_path
):
    records = [{"question": ["q"], "rationale": r, "region": [1]} for r in ([], [[1]], [[2]])]
    dataset = list_dataset([(f"p{n}", "0.9 x") for n in range(3)], records)
    run(Task(ClassificationConfig()), dataset, rule_model, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["empty_rationale"] == 2
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "<b>2</b><span>scored without a rationale's words" in page


class CaptionModel:
    """P(accept) is the number in `What is in this image? Answer: 0.25 ...`."""

    def predict(self, samples):
        words = [text.split("Answer: ")[1].split()[0] for text in samples["text_input"]]
        scores = torch.tensor([float(word) for word in words])
        prediction = torch.stack([1 - scores, scores], dim=1)
        return {"prediction": prediction, "logits": prediction.log()}


def test_names_that_are_not_utf8_reach_every_file(run, tmp_path):
    from PIL import Image

    from lavis.datasets.builders import build_dataset
    from lavis.datasets.config import LaionConfig

    folder = tmp_path / "pictures"
    folder.mkdir()
    captions = {"caf\udce9": "0.9 cup", "naïve 😀": "0.2 cup", "x\udcff": ""}
    for name, caption in captions.items():
        Image.new("RGB", (8, 6), (200, 0, 0)).save(folder / f"{name}.png")
        (folder / f"{name}.json").write_text(json.dumps({"caption": caption}))
    config = LaionConfig(
        build_info={"annotations": {"test": {"storage": str(folder)}}},
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 8}},
        text_processor={"eval": {"name": "base"}},
    )
    dataset = build_dataset("laion_sample_extracted", config, "test")
    task = Task(ClassificationConfig(keep_above=[0.5]))
    metrics = run(task, dataset, CaptionModel(), tmp_path)
    assert (metrics["scored"], metrics["rejected"]) == (2, 1)
    rows = json.loads((tmp_path / "result" / "test_epochbest.json").read_text("utf-8"))
    assert [row["instance"] for row in rows] == ["caf\\xe9", "naïve 😀"]
    (reject,) = read_lines(tmp_path / "rejects.jsonl")
    assert reject["file"].endswith("pictures/x\\xff.png")
    written = [p for p in tmp_path.rglob("*") if p.suffix in (".jsonl", ".html", ".parquet")]
    assert {p.suffix for p in written} == {".jsonl", ".html", ".parquet"}
    for path in written:
        if path.suffix == ".parquet":
            cells = [str(cell) for row in pq.read_table(path).to_pylist() for cell in row.values()]
            assert any("caf\\xe9" in cell for cell in cells)
        else:
            path.read_text("utf-8")


def test_the_page_fits_and_can_be_read(
    golden_folder, list_dataset, rule_model, run, browser, tmp_path
):
    check_report(browser, golden_folder / "report.html")
    scores = [0.9, 0.8, 0.6, 0.4, 0.3, 0.1]
    pairs = [(f"p{n}", f"{score} {'long' * 60} Answer: [0] b") for n, score in enumerate(scores)]
    records = [{"source": f"{n % 2}" * 70, "kind": "colour", "region": [1] * n} for n in range(6)]
    dataset = list_dataset([*pairs, ("broken", "0.5 c")], [*records, {}], [1, 0, 1, 1, 0, 0, 1])
    run(Task(ClassificationConfig(keep_above=[0.35, 0.5])), dataset, rule_model, tmp_path)
    check_report(browser, tmp_path / "report.html")


def test_what_a_model_notes_becomes_columns_or_a_reject():
    rows = [Row(i, "key", "text", {"index": i}) for i in range(3)]
    notes = [{"p_yes_low": 0.2}, {"reject": "no answer: the server says nothing", "again": True}]
    notes.append({})

    class Model:
        def predict(self, samples):
            logits = torch.tensor([[0.0, 1.0]] * 3)
            return {"logits": logits, "prediction": logits.softmax(1), "notes": notes}

    task = Task(ClassificationConfig())
    batch = UnitBatch(0, rows, {})
    scored = task.rows(batch, task.predict(Model(), batch))
    assert batch.again
    assert scored[0][1]["p_yes_low"] == 0.2 and scored[0][1]["prediction"] == 1
    assert scored[1][1] == {"reject": "no answer: the server says nothing"}
    assert "p_yes_low" not in scored[2][1]


class BoundedModel:
    """P(accept) is what the text says, within bounds 0.1 away; no bounds where it says so."""

    def predict(self, samples):
        words = [text.split() for text in samples["text_input"]]
        scores = torch.tensor([float(each[0]) for each in words])
        notes = [
            {} if each[1] == "exact" else {"p_yes_low": value - 0.1, "p_yes_high": value + 0.1}
            for value, each in zip(scores.tolist(), words, strict=True)
        ]
        prediction = torch.stack([1 - scores, scores], dim=1)
        return {"prediction": prediction, "logits": prediction.log(), "notes": notes}


PAIRS = [("a", "0.45 x"), ("b", "0.55 x"), ("c", "0.85 x"), ("d", "0.5 exact"), ("e", "0.625 x")]


def test_rows_whose_bounds_lie_on_both_sides_of_a_threshold_are_marked(list_dataset, run, tmp_path):
    task = Task(ClassificationConfig(keep_above=[0.5, 0.7, 0.525]))
    run(task, list_dataset(PAIRS), BoundedModel(), tmp_path)
    lines = read_lines(tmp_path / "result" / "test_epochbest.jsonl")
    marks = {line["text"][:4]: line.get("unsure_at") for line in lines}
    assert marks == {"0.45": [0.5, 0.525], "0.55": [0.5, 0.525], "0.85": [], "0.5 ": None,
                     "0.62": [0.7]}  # fmt: skip
    assert json.loads((tmp_path / "result" / "test_epochbest.json").read_text()) == lines
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["unsure"] == {"0.5": 2, "0.7": 1, "0.525": 2}
    table = pq.read_table(tmp_path / "result" / "test_epochbest.parquet").to_pylist()
    assert [row["unsure_at"] for row in table][:2] == ["[0.5, 0.525]"] * 2


def test_bounds_are_compared_as_calibrated(list_dataset, run, tmp_path):
    config = ClassificationConfig(calibrate="temperature", calibrate_on="val", keep_above=[0.8])
    task, pairs = Task(config), [(f"p{n}", f"{0.45 + n / 50} x") for n in range(11)]
    labels = [0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1]
    for split in ("val", "test"):
        run(task, list_dataset(pairs, labels=labels, split=split), BoundedModel(), tmp_path)
    lines = read_lines(tmp_path / "result" / "test_epochbest.jsonl")
    sharper = [line for line in lines if line["calibrated_score"] > line["score"] + 0.01]
    assert sharper and any(line["unsure_at"] == [0.8] for line in sharper)
    raw = [line for line in lines if line["p_yes_low"] < 0.8 <= line["p_yes_high"]]
    assert raw == [] and list(lines[0])[-2:] == ["calibrated_score", "unsure_at"]


def test_scores_without_bounds_have_no_marks(list_dataset, rule_model, run, tmp_path):
    run(Task(ClassificationConfig()), list_dataset(PAIRS), rule_model, tmp_path)
    assert "unsure" not in json.loads((tmp_path / "summary.json").read_text())
    assert "unsure_at" not in (tmp_path / "result" / "test_epochbest.jsonl").read_text()


class TellingModel:
    """As `rule_model`, and tells how the verdicts come about."""

    def __init__(self, rule_model):
        self.predict, self.asked = rule_model.predict, []

    def trace(self, samples):
        (text,) = samples["text_input"]
        self.asked.append(text)
        if text.startswith("0.3"):
            return [{"reject": "text holds a mark of the model: '<image>'"}]
        tokens = [("<b>Yes", 0.75), ("\u0120No" * 40, 0.125)]
        images = [torch.full((3, 40, 900), 120, dtype=torch.uint8)] * 30
        sets = {"top": tokens, "yes": tokens[:1], "no": tokens[1:]}
        return [{"prompt": f"Is it so? {text} " * 30, "score": 0.875, "images": images, **sets}]


def test_the_page_tells_how_some_verdicts_come_about(
    list_dataset, rule_model, run, browser, tmp_path
):
    pairs = [(f"p{n}", f"0.{n} text") for n in (5, 1, 3, 9, 7)] + [("broken", "0.2 c"), None]
    task, model = Task(ClassificationConfig(report_traces=3)), TellingModel(rule_model)
    run(task, list_dataset(pairs), model, tmp_path)
    assert model.asked == ["0.1 text", "0.5 text", "0.9 text"]
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="card trace"') == 3 and page.count("by 40 pixels") == 3 * 24
    assert "24 images as the model sees them, 6 more · P(yes) 0.8750" in " ".join(page.split())
    assert "<code>&lt;b&gt;Yes</code> 0.7500" in page
    check_report(browser, tmp_path / "report.html")
    run(task, list_dataset(pairs), model, tmp_path / "all", report=False)
    assert len(model.asked) == 3


@pytest.mark.parametrize(("count", "asked"), [(0, []), (1, ["0.1"]), (9, ["0.1", "0.3", "0.5"])])
def test_rows_that_can_be_read_are_traced(list_dataset, rule_model, run, tmp_path, count, asked):
    dataset = list_dataset([("p", "0.5 x"), ("q", "0.1 x"), ("r", "0.3 x"), ("broken", "0.2 x")])
    task, model = Task(ClassificationConfig(report_traces=count)), TellingModel(rule_model)
    run(task, dataset, model, tmp_path)
    assert [text.split()[0] for text in model.asked] == asked
    assert ("no verdict now: text holds a mark" in (tmp_path / "report.html").read_text()) == (
        "0.3" in asked
    )
    assert "report_traces" in Task.free_options
