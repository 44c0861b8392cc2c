"""The answering task on small files: columns, controls, result files, the page."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from page_checks import check_report

sys.path.insert(0, str(Path(__file__).parent))
from question_run import (
    SET,
    PresetImages,
    World,
    answer,
    make_config,
    make_dataset,
    make_model,
    make_task,
)

from lavis.common.errors import ConfigError
from lavis.common.storage.journal import Journal, JournalReader
from lavis.tasks.questions.images import control_question
from lavis.tasks.questions.task import VisualQuestionsTask
from nearness import assert_near

COLUMNS = ["text", "single", "images", "best_of_n", "shuffled"]
QUESTIONS = ("What is the color of a tench?", "What color is a banana?", "What color is milk?")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("tower"))


@pytest.fixture
def pool():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def colors(tmp_path):
    pairs = zip(QUESTIONS, ("green", "yellow", "white"), strict=True)
    lines = "".join(f"x,{q},{a}\n" for q, a in pairs)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "color.csv").write_text(f"category,question,answer\n{lines}bad\n")
    return make_dataset("imagenetvc", folder, subsets=["color"])


def chosen(scores=(0.3, 0.2)):
    places = ([0, 1], [1, 2], [2, 3])
    return {q: (p, list(scores)) for q, p in zip(QUESTIONS, places, strict=True)}


def test_columns_agree_with_a_question_asked_alone(model, pool, colors, monkeypatch):
    config = make_config(2, columns=COLUMNS)
    task = make_task(config, monkeypatch, PresetImages(pool, chosen(), "question"))
    rows = answer(task, model, colors)
    assert rows[3]["reject"].startswith("malformed line: fewer cells")
    ids = torch.tensor([task.texts.tokenizer(QUESTIONS[1] + " Answer:").input_ids])
    tokens = task.texts.candidates(colors.question(1).options, "both")
    for column, places, scores in (
        ("single", [1], [0.3]),
        ("pictures", [1, 2], [0.3, 0.2]),
        ("shuffled", [0, 1], [0.3, 0.2]),
        ("text", [], []),
    ):
        samples = {"input_ids": ids}
        if places:
            samples |= {
                "pixel_values": pool[places],
                "image_index": torch.arange(len(places))[None],
                "scores": torch.tensor([scores]),
            }
        log_probs = model.predict(samples)["log_probs"][0, 0]
        top = log_probs[list(tokens.first)].max().item()
        found = rows[1]["values"][column]["first_token"][1][0]
        assert found == pytest.approx(top, abs=1e-5)
    described = rows[1]["pictures"]
    assert [p["score"] for p in described[0]] == [0.3, 0.2]
    assert [p["weight"] for p in described[0]] == pytest.approx([0.15, 0.1])


def test_text_only_runs_need_no_images(model, colors, monkeypatch):
    config = make_config(0, columns=COLUMNS)
    rows = answer(make_task(config, monkeypatch), model, colors)
    assert list(rows[0]["predicted"]) == ["text", "best_of_n"]
    assert "pictures" not in rows[0]
    assert config.samples == 10


def test_each_distinct_image_and_text_runs_once(model, pool, colors, monkeypatch):
    seen = {"pictures": [], "texts": []}
    encode_text, encode_images = model.encode_text, model.encode_frozen

    def texts(ids, mask=None, starts=None):
        seen["texts"].append((len(ids), len(starts.first)))
        return encode_text(ids, mask, starts)

    def images(image):
        seen["pictures"].append(len(image))
        return encode_images(image)

    monkeypatch.setattr(model, "encode_text", texts)
    monkeypatch.setattr(model, "encode_frozen", images)
    config = make_config(2, columns=COLUMNS)
    given = chosen((0.3, 0.3))  # equal names: places alone tell images apart
    config = replace(config, protocols=["released"])
    task = make_task(config, monkeypatch, PresetImages(pool, given, "question"))
    answer(task, model, colors, batch_size=100)
    assert seen == {"pictures": [4], "texts": [(15, 6)]}  # 3 questions x 5 prompts, of 2 beginnings


def test_results_do_not_depend_on_the_unit_size(model, pool, colors, monkeypatch):
    config = make_config(2, columns=COLUMNS)
    task = make_task(config, monkeypatch, PresetImages(pool, chosen(), "question"))
    small, large = (answer(task, model, colors, batch_size=size) for size in (1, 100))
    for one, other in zip(small[:3], large[:3], strict=True):
        assert one["predicted"] == other["predicted"]


def test_the_likeliest_of_some_drawn_answers_is_kept(colors, monkeypatch):
    question, ranked = colors.question(0), [("red", -0.1), ("blue", -3.0)]
    draw = make_task(make_config(0, best_of=400), monkeypatch)._answers._draw
    assert draw(question, 0, "first_token", ranked) == ranked  # both are among 400
    draw = make_task(make_config(0, best_of=1), monkeypatch)._answers._draw
    said = [draw(question, n, "first_token", ranked)[0][0] for n in range(60)]
    assert {"red", "blue"} == set(said)  # one draw follows chance, not the largest
    assert said == [draw(question, n, "first_token", ranked)[0][0] for n in range(60)]


def test_the_control_shows_images_of_something_else(colors):
    assert control_question(colors, 0).image_text == QUESTIONS[2]
    assert control_question(colors, 2).image_text == QUESTIONS[0]


def write_reading(folder):
    context = "Rome is old. Ada wrote in 1843."
    rows = [
        {"id": str(n), "title": "T", "context": context, "question": q, "answers": {"text": [a]}}
        for n, (q, a) in enumerate((("What is old?", "Rome"), ("Who wrote?", "Ada")))
    ]
    (folder / "squad.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_written_answers(model, pool, tmp_path, monkeypatch):
    write_reading(tmp_path)
    dataset = make_dataset("squad", tmp_path, protocol="corrected")
    prompts = [dataset.question(n).image_text for n in range(2)]
    given = {prompts[0]: ([0, 1], [0.9, 0.4]), prompts[1]: ([2, 3], [0.8, 0.7])}
    config = make_config(2, columns=COLUMNS, max_new_tokens=3, max_tokens=160, long_texts="cut")
    task = make_task(config, monkeypatch, PresetImages(pool, given, "question"))
    rows = answer(task, model, dataset)
    ids = torch.tensor([task.texts.requests(dataset.question(1), 0)[0].ids])
    for column, options in (
        ("text", {}),
        ("best_of_n", {"num_beams": 2}),
        (
            "pictures",
            {
                "pixel_values": pool[[2, 3]],
                "image_index": torch.tensor([[0, 1]]),
                "scores": torch.tensor([[0.8, 0.7]]),
            },
        ),
    ):
        made = model.generate(ids, max_new_tokens=3, eos_token_id=0, **options)
        text = task.texts.tokenizer.decode(made[0], skip_special_tokens=True).strip()
        assert rows[1]["predicted"][column]["answer"] == [text.split("\n")[0].strip()]
        assert set(rows[1]["marks"][column]) == {"exact_match", "f1"}


def test_long_texts_are_set_aside(model, tmp_path, monkeypatch):
    write_reading(tmp_path)
    dataset = make_dataset("squad", tmp_path, protocol="corrected")
    task = make_task(make_config(0, max_tokens=20), monkeypatch)
    rows = answer(task, model, dataset)
    assert "text too long" in rows[0]["reject"] and "run.max_tokens is 20" in rows[0]["reject"]


def finish(task, rows, dataset, folder, name="test_epochbest"):
    journal = Journal(folder / "journal", {}, 0)
    journal.append(0, list(enumerate(rows)))
    journal.close()
    with JournalReader(folder / "journal", {}) as reader:
        return task.finish(reader, dataset, folder, name)


def test_files_of_a_run(model, pool, colors, tmp_path, monkeypatch):
    config = make_config(2, columns=COLUMNS, resamples=50)
    images = PresetImages(pool, chosen(), "question")
    images.store = None
    task = make_task(config, monkeypatch, images)
    rows = answer(task, model, colors)
    metrics = finish(task, rows, colors, tmp_path)
    lines = (tmp_path / "result" / "test_epochbest.jsonl").read_text().splitlines()
    assert [json.loads(line)["question_id"] for line in lines] == ["color-1", "color-2", "color-3"]
    (reject,) = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["line"] == 5
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["main_rule"] == "first_token"
    assert results["rules"]["candidate_likelihood"]["protocol"] == "corrected"
    color = results["groups"]["color"]
    for column in config.shown:
        marks = [row["marks"][column]["first_token"] for row in rows[:3]]
        expected = [100 * sum(m[p] for m in marks) / 3 for p in range(5)]
        assert color["rules"]["first_token"][column]["per_prompt"] == pytest.approx(expected)
    assert "vs_text" not in color["rules"]["first_token"]["text"]
    assert metrics["agg_metrics"] == pytest.approx(metrics["pictures_accuracy"] / 100)
    assert (metrics["rows"], metrics["scored"], metrics["rejected"]) == (4, 3, 1)
    assert color["majority"] == pytest.approx(100 / 3)
    page = (tmp_path / "report.html").read_text()
    for text in ("color of a tench", "weight 0.150", "best_of_n", "first_token (released, main)"):
        assert text in page


def test_questions_with_an_image_are_listed_apart(model, pool, colors, tmp_path, monkeypatch):
    given = chosen()
    given[QUESTIONS[0]] = ([0, 1], [0.0, 0.0])  # shows nothing of the question
    images = PresetImages(pool, given, "question")
    images.store = None
    task = make_task(make_config(2, resamples=20), monkeypatch, images)
    finish(task, answer(task, model, colors), colors, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["shown"]["questions"], results["not_shown"]["questions"]) == (2, 1)
    columns = results["not_shown"]["rules"]["first_token"]
    assert columns["pictures"]["mean"] == columns["text"]["mean"]  # weight 0: the text alone


def test_images_from_a_folder_are_kept_with_their_features(model, tmp_path):
    from PIL import Image

    (tmp_path / "color.csv").write_text("category,question,answer\nx,Red?,red\nx,Blue?,blue\n")
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number, prompt in enumerate(("Red?", "Blue?")):
        names = [f"{number}-{n}.png" for n in range(2)]
        for n, name in enumerate(names):
            Image.new("RGB", (32, 32), (80 * n, 100 * number, 50)).save(folder / name)
        lines.append(json.dumps({"prompt": prompt, "images": names}) + "\n")
    (tmp_path / "list.jsonl").write_text("".join(lines))
    dataset = make_dataset("imagenetvc", tmp_path, subsets=["color"])
    node = {
        "options": {"root": str(folder), "manifest": str(tmp_path / "list.jsonl")},
        "prompt_rule": "verbatim",
        "scorer": None,
        "cache_dir": str(tmp_path / "cache"),
    }
    model_of_means = make_model(tmp_path, weights="mean", mix="probs", clamp_weights=True)
    found = []
    for keep in (True, False):
        config = make_config(2, node, keep_features=keep, columns=["text", "images", "shuffled"])
        task = VisualQuestionsTask(config)
        found.append(answer(task, model_of_means, dataset))
    assert_near(found[0], found[1])  # images pass the tower in other batches
    assert found[0][0]["values"]["pictures"] != found[0][0]["values"]["text"]
    assert (tmp_path / "cache" / "vision_features").is_dir()
    assert task.identity()["pictures_per"] == "question"
    assert "cache_dir" not in task.identity()["pictures"]


def test_other_data_sets_are_refused(model, monkeypatch):
    class Plain:
        name = "laion"

    task = make_task(make_config(), monkeypatch)
    with pytest.raises(ConfigError, match="asks benchmarks; 'laion' is none"):
        task.prepare(model, Plain(), World())
    with pytest.raises(ValueError, match="'text' must be among them"):
        make_config(columns=["single"])
    with pytest.raises(ConfigError, match=r"run.tokenizer: cannot load"):
        make_task(make_config_of(str(SET / "absent")), monkeypatch)


def make_config_of(tokenizer):
    from lavis.tasks.questions.config import VisualQuestionsConfig

    return VisualQuestionsConfig(tokenizer=tokenizer)


def test_the_page_fits_and_can_be_read(model, pool, colors, browser, tmp_path, monkeypatch):
    images = PresetImages(pool, chosen(), "question")
    images.store = None
    task = make_task(make_config(2, columns=COLUMNS, resamples=50), monkeypatch, images)
    finish(task, answer(task, model, colors), colors, tmp_path)
    page = tmp_path / "report.html"
    text = page.read_text()
    assert '<div class="none"' in text  # the images of this run are in no store
    check_report(browser, page)
    drawn = '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="a prompt">'
    page.write_text(re.sub(r'<div class="none"[^>]*></div>', drawn, text))
    check_report(browser, page)
