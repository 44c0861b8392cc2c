"""Evaluation rules of a vLMIG set: ImageNetVC, multiple choice, BoolQ, SQuAD, prompts of images.

Files are written as published and read back, so that readers, prompts, tokens, the model, mixing,
answers and accuracies are all compared. Shapes: Q questions, P prompts, C candidate tokens.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lavis.common.text import split_sentences
from lavis.datasets.benchmarks.imagenetvc import CANDIDATES, DEMONSTRATIONS, demonstrations
from lavis.generators.prompts import image_prompts
from lavis.models.late_fusion.model import LateFusion
from lavis.tasks.questions.reading_metrics import normalize_answer, score_answer
from lavis.tasks.statistics import describe
from projects.checks.golden.checks import (
    CHANCES,
    EXACT,
    Check,
    compare,
    contained,
    read_json,
    unequal,
)
from projects.checks.golden.preset import (
    Answers,
    Chosen,
    PresetImages,
    answer,
    make_config,
    make_dataset,
    make_task,
    write_lines,
)
from projects.checks.golden.vlmig import LOSSES, build

PERCENT = 1e-6
PartChecks = Callable[[Any, Any], Iterator[Check]]  # of an `Exam` and a part's values
MODES = {  # of ImageNetVC's results; `text` is the other column of each
    "fused_reference": {"weight_multiplier": 2.0, "mix": "logits", "clamp_weights": False},
    "fused_paper": {"weight_multiplier": 2.0, "mix": "probs", "clamp_weights": True},
}
BENCHMARKS = {"hs": "hellaswag", "arc": "arc_easy"}  # formats under another name here


@dataclass
class Exam:
    """A set's model, images, and a folder for files.

    Attributes:
        at: the set's folder `eval`.
        folder: for files as published.
    """

    at: Path
    folder: Path
    model: LateFusion
    pool: Tensor

    def task(self, chosen: Sequence[Any], per: str, **options: Any) -> Any:
        """Return a task that shows each question what is chosen for its row.

        Args:
            chosen: by row: places and scores, or with `per` prompt a list of them.
            per: `question` or `prompt`.
        """

        def sets(question: Any) -> list[Chosen]:
            return [chosen[question.index]] if per == "question" else chosen[question.index]

        first = chosen[0] if per == "question" else chosen[0][0]
        config = make_config(
            self.at, self.folder, num_images=len(first[0]), images_per=per, **options
        )
        return make_task(config, PresetImages(self.pool, sets))

    def mixes(self, **options: Any) -> LateFusion:
        """Return the model with another way of mixing."""
        self.model.config = replace(self.model.config, **options)
        return self.model


def question_checks(at: Path) -> Iterator[Check]:
    """Compare all that a set's folder `eval` holds."""
    with tempfile.TemporaryDirectory() as temporary:
        images = load_file(at / "images.safetensors")
        exam = Exam(at, Path(temporary), build(at), images["pool.pixel_values"])
        for name, checks in PARTS.items():
            if (at / f"{name}.json").is_file():
                yield from contained(name, _part_checks(checks, exam, at / f"{name}.json"))


def _part_checks(checks: PartChecks, exam: Exam, path: Path) -> Iterator[Check]:
    yield from checks(exam, read_json(path))


def _imagenetvc_checks(exam: Exam, golden: dict[str, Any]) -> Iterator[Check]:
    task = exam.task([([0], [0.0])], "question")
    for name, expected in golden["candidates"].items():
        tokens = task.texts.candidates(CANDIDATES[name], "both")
        found = list(CANDIDATES[name]), list(tokens.first), list(tokens.decoded)
        wanted = expected["strings"], expected["token_ids"], expected["decoded"]
        yield unequal(f"imagenetvc.candidates.{name}", [*zip(found, wanted, strict=True)])
    for name, shown in golden.get("icl", {}).items():
        yield unequal(f"imagenetvc.icl.{name}", [(_demonstrations(exam, name, shown), shown)])
    path = exam.at / "imagenetvc_probs.safetensors"
    chances = load_file(path) if path.is_file() else {}
    for subset, part in golden["subsets"].items():
        _write_subset(exam.folder, part)
        group = part["csv"].removesuffix(".csv")
        dataset = make_dataset("imagenetvc", exam.folder, subsets=[group])
        chosen = list(zip(part["image_index"], part["clip_scores"], strict=True))
        task = exam.task(chosen, "question", protocols=["released"])
        for mode, options in MODES.items():
            answers = answer(task, exam.mixes(**options), dataset)
            columns = {"text": "text", mode: "pictures"} if mode == "fused_reference" else {}
            for result, column in (columns or {mode: "pictures"}).items():
                label = f"imagenetvc.{subset}.{result}"
                expected = golden["results"][subset][result]
                yield from _word_checks(label, answers.rows, column, expected)
                probs = chances.get(f"{subset}.{result}.candidate_probs")
                if probs is not None:
                    ids = [golden["candidates"][name]["token_ids"] for name in part["sub_subset"]]
                    own = _candidate_chances(answers, column, ids, probs.shape)
                    yield compare(f"{label}.candidate_probs", own, probs, CHANCES)


def _write_subset(folder: Path, part: dict[str, Any]) -> None:
    with open(folder / part["csv"], "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["category", "question", "answer"])
        lines.writerows(["", q, a] for q, a in zip(part["question"], part["answer"], strict=True))


def _word_checks(
    label: str, rows: list[dict[str, Any]], column: str, expected: dict[str, Any]
) -> Iterator[Check]:
    """Answers, marks and probabilities of each prompt; accuracies with mean and deviation."""
    said, marks, values = (
        [row[part][column]["first_token"] for row in rows]
        for part in ("predicted", "marks", "values")
    )
    for prompt, one in enumerate(expected["per_prompt"]):
        name = f"{label}.prompt{prompt}"
        words = [word.lower() for word in one["predicted"]]
        pairs = zip([row[prompt] for row in said], words, strict=True)
        yield unequal(f"{name}.predicted", list(pairs))
        yield unequal(f"{name}.correct", [([row[prompt] for row in marks], one["correct"])])
        top, lead = np.array([row[prompt] for row in values], dtype=np.float64).T
        found = torch.from_numpy(np.exp(top))
        yield compare(f"{name}.p_top", found, torch.tensor(one["p_top"]), CHANCES)
        found = torch.from_numpy(np.exp(top) - np.exp(top - lead))
        yield compare(f"{name}.margin", found, torch.tensor(one["margin"]), 2 * CHANCES)
    told = describe(np.array(marks, dtype=np.float64), 1, 0)
    found = torch.tensor([*told["per_prompt"], told["mean"], told["std"]], dtype=torch.float64)
    percent = [100 * value for value in expected["accuracy"]]
    wanted = torch.tensor(
        [*percent, expected["mean_percent"], expected["std_percent"]], dtype=torch.float64
    )
    yield compare(f"{label}.accuracy", found, wanted, PERCENT)


def _candidate_chances(
    answers: Answers, column: str, ids: list[list[int]], shape: Sequence[int]
) -> Tensor:
    """Return `(P, Q, C)`, -1 where a question has fewer candidates than others."""
    found = torch.full(tuple(shape), -1.0)
    for (question, prompt), known in answers.chances[column].items():
        own = ids[question]
        found[prompt, question, : len(own)] = torch.tensor([known[token] for token in own])
    return found


def _demonstrations(exam: Exam, name: str, shown: Sequence[str]) -> list[str]:
    """Take the examples apart, write their file, and put them together again."""
    before, _, after = DEMONSTRATIONS[1].format(q="\0", a="\1").partition("\0")
    between, _, end = after.partition("\1")
    pairs = [part.removeprefix(before).split(between) for part in shown[1].split(end) if part]
    (exam.folder / "dev").mkdir(exist_ok=True)
    questions, answers = zip(*pairs, strict=True)
    part = {"csv": f"dev/{name}.csv", "question": questions, "answer": answers}
    _write_subset(exam.folder, part)
    return list(demonstrations(exam.folder, name))


def _choice_checks(exam: Exam, golden: dict[str, Any]) -> Iterator[Check]:
    model = exam.mixes(weight_multiplier=1.0, mix="logits", clamp_weights=False)
    for kind, part in golden["formats"].items():
        items, name = part["items"], BENCHMARKS.get(kind, kind)
        write_lines(exam.folder / f"{name}.jsonl", [item["item"] for item in items])
        dataset = make_dataset(name, exam.folder)
        chosen = [
            list(zip(item["image_index"], item["clip_scores"], strict=True)) for item in items
        ]
        task = exam.task(chosen, "prompt", protocols=["released"])
        rows = answer(task, model, dataset, batch_size=32).rows
        label = f"commonsense.{kind}"
        asked = [list(dataset.question(n).prompts) for n in range(len(items))]
        queries = [item["queries"] for item in items]
        yield unequal(f"{label}.queries", list(zip(asked, queries, strict=True)))
        golds = zip([row["gold"] for row in rows], items, strict=True)
        yield unequal(f"{label}.label", [(gold, item["label_index"]) for gold, item in golds])
        for mode, column in (("text", "text"), ("fused_reference", "pictures")):
            # exp(loss) is in the thousands, so losses are compared: minus our scores.
            found = [value for row in rows for value in row["values"][column]["sequence_loss"]]
            wanted = [value for item in items for value in item["exp_loss"][mode]]
            losses = torch.tensor(wanted, dtype=torch.float64).log()
            yield compare(
                f"{label}.{mode}.loss", -torch.tensor(found, dtype=torch.float64), losses, LOSSES
            )
            said = [row["predicted"][column]["sequence_loss"][0] for row in rows]
            pairs = zip(said, [item["predicted"][mode] for item in items], strict=True)
            yield unequal(f"{label}.{mode}.predicted", list(pairs))
            marks = [row["marks"][column]["sequence_loss"] for row in rows]
            right = describe(np.array(marks, dtype=np.float64), 1, 0)["mean"]
            percent = 100 * part["accuracy"][mode]
            yield Check(f"{label}.{mode}.accuracy", abs(right - percent), PERCENT)


def _boolq_checks(exam: Exam, golden: dict[str, Any]) -> Iterator[Check]:
    items = golden["items"]
    write_lines(exam.folder / "boolq.jsonl", [item["item"] for item in items])
    dataset = make_dataset("boolq", exam.folder)
    chosen = [(item["image_index"], item["clip_scores"]) for item in items]
    task = exam.task(chosen, "question", protocols=["released"])
    model = exam.mixes(weight_multiplier=1.0, mix="logits", clamp_weights=False)
    tokens = [golden["yes_id"], golden["no_id"]]
    first = list(task.texts.candidates(dataset.question(0).options, "given").first)
    yield unequal("boolq.tokens", [(first, tokens)])
    prompts = [dataset.question(n).prompts[0] for n in range(len(items))]
    pairs = zip(prompts, [item["prompt"] for item in items], strict=True)
    yield unequal("boolq.prompt", list(pairs))
    answers = answer(task, model, dataset)
    for mode, column in (("text", "text"), ("fused_with_scores", "pictures")):
        said = [row["predicted"][column]["first_token"][0] for row in answers.rows]
        pairs = zip(said, [item[mode]["prediction"] for item in items], strict=True)
        yield unequal(f"boolq.{mode}.predicted", list(pairs))
        chances = [answers.chances[column][n, 0] for n in range(len(items))]
        found = torch.tensor([[known[token] for token in tokens] for known in chances])
        wanted = torch.tensor([[i[mode]["p_yes"][0], i[mode]["p_no"][0]] for i in items])
        yield compare(f"boolq.{mode}.p_yes_no", _shares(found), _shares(wanted), CHANCES)
    yield from _boolq_image_checks(exam, task, items, tokens)


def _boolq_image_checks(
    exam: Exam, task: Any, items: list[dict[str, Any]], tokens: list[int]
) -> Iterator[Check]:
    """What each image says on its own, and the answer that their mean gives."""
    model = exam.mixes(mix="probs", weights="mean", clamp_weights=True)
    said, found, wanted = [], [], []
    for item in items:
        samples = {
            "input_ids": torch.tensor([task.texts.tokenizer(item["prompt"]).input_ids]),
            "pixel_values": exam.pool[item["image_index"]],
            "image_index": torch.arange(len(item["image_index"]))[None],
            "token_ids": torch.tensor(tokens),
        }
        outputs = model.predict(samples, details=True)
        found.append(outputs["image_log_probs"][0, :, 0].exp())
        expected = item["fused_reference_no_scores"]
        wanted.append(torch.tensor([expected["p_yes"], expected["p_no"]]).T)
        said.append(("yes", "no")[int(outputs["log_probs"][0, 0].argmax())])
    shares = _shares(torch.cat(found)), _shares(torch.cat(wanted))
    yield compare("boolq.each_picture.p_yes_no", *shares, CHANCES)
    means = [i["fused_reference_no_scores"]["prediction_from_mean_over_images"] for i in items]
    yield unequal("boolq.mean_of_pictures.predicted", list(zip(said, means, strict=True)))


def _shares(chances: Tensor) -> Tensor:
    """Return probabilities among the tokens asked for, as a set gives them."""
    return chances / chances.sum(dim=-1, keepdim=True)


def _squad_checks(exam: Exam, golden: dict[str, Any]) -> Iterator[Check]:
    pairs = golden["pairs"]
    marks = [score_answer(pair["prediction"], pair["answers"]) for pair in pairs]
    forms = [(normalize_answer(p["prediction"]), p["normalized_prediction"]) for p in pairs]
    forms += [
        (normalize_answer(answer), form)
        for pair in pairs
        for answer, form in zip(pair["answers"], pair["normalized_answers"], strict=True)
    ]
    yield unequal("squad.normalized", forms)
    matches = [(m["exact_match"], p["exact_match"]) for m, p in zip(marks, pairs, strict=True)]
    yield unequal("squad.exact_match", matches)
    found = torch.tensor([mark["f1"] for mark in marks], dtype=torch.float64)
    wanted = torch.tensor([pair["f1"] for pair in pairs], dtype=torch.float64)
    yield compare("squad.f1", found, wanted, 1e-9)
    items = [{"id": str(number), **item} for number, item in enumerate(golden["items"])]
    write_lines(exam.folder / "squad.jsonl", items)
    dataset = make_dataset("squad", exam.folder)
    asked = [dataset.question(n) for n in range(len(dataset))]
    prompts = [(int(question.question_id), *question.prompts) for question in asked]
    expected = [(entry["item"], entry["prompt"]) for entry in golden["prompts"]]
    yield unequal("squad.prompts", [(prompts, expected)])


def _prompt_checks(exam: Exam, golden: list[dict[str, Any]]) -> Iterator[Check]:
    found, sentences = [], []
    for case in golden:
        text = " ".join(case["sentences"])
        prompts = image_prompts(
            text, case["k"], anchor_words=case["last_words"], sentences=case["sentences"]
        )
        found.append((prompts, case["prompts"]))
        sentences.append((split_sentences(text), case["sentences"]))
    yield unequal("image_prompts", found)
    yield Check("image_prompts.sentences", sum(a != b for a, b in sentences), EXACT)


PARTS: dict[str, PartChecks] = {
    "imagenetvc": _imagenetvc_checks,
    "commonsense": _choice_checks,
    "boolq": _boolq_checks,
    "squad": _squad_checks,
    "image_prompts": _prompt_checks,
}
