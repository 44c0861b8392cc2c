"""Answers benchmark questions from the text alone and with images, side by side.

Shapes: T distinct texts and B rows of a unit, L tokens, R target positions, C target tokens of one,
N distinct images, K images of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lavis.common.config.renamed import former_names
from lavis.common.errors import ConfigError, RecordError
from lavis.common.registry import tasks
from lavis.tasks.base import BaseTask, LateFusionModel, NumberedRow, Samples, UnitBatch
from lavis.tasks.questions.answers import AnswerRows
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.gate import certain_questions
from lavis.tasks.questions.images import ImageSet, QuestionImages, control_question
from lavis.tasks.questions.reading_metrics import is_finished
from lavis.tasks.questions.requests import (
    QuestionTokenizer,
    TextRequest,
    collate_requests,
    split_targets,
)
from lavis.tasks.questions.results import write_results
from lavis.tasks.rows import Results

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.common.dist import World
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.datasets.benchmarks.question import Question
    from lavis.tasks.planning import Plan

Images = dict[str, dict[str, Any]]  # of a unit: own (``) and foreign ones (`other_`)
_OWN = {"text": 0, "single": 1, "pictures": None}  # column -> how many of the own images
_TEXT = ("input_ids", "attention_mask", "text_index", "positions", "token_ids")
# options that change no row
_FREE = ("keep_features", "main_rule", "report_examples", "resamples")


@dataclass
class QuestionBatch(UnitBatch):
    """One unit of usable questions: their B rows, and the sets of images of each."""

    questions: list[Question] = field(default_factory=list)
    requests: list[TextRequest] = field(default_factory=list)
    sets: list[list[ImageSet]] = field(default_factory=list)


@tasks.register("visual_questions")
class VisualQuestionsTask(BaseTask[LateFusionModel]):
    """Benchmarks of late fusion: next words, multiple choice, written answers.

    Example:
        ```python
        config = load_config(
            "lavis/projects/vlmig/eval/imagenetvc.yaml",
            ["model.num_images=3", "run.output_dir=output/imagenetvc"],
            mode="evaluate",
        )
        metrics = build_runner(config).evaluate()["test"]  # of lavis.common.cli
        print(metrics["text_accuracy"], metrics["pictures_accuracy"])
        ```
    """

    config_class: ClassVar[type] = VisualQuestionsConfig
    config: VisualQuestionsConfig

    def __init__(self, config: VisualQuestionsConfig) -> None:
        super().__init__(config)
        self.texts = QuestionTokenizer.load(
            config.tokenizer,
            config.max_tokens,
            cut=config.long_texts == "cut",
            first_only="corrected" not in config.protocols,
        )
        self.images: QuestionImages | None = None
        if config.images.num_images:
            self.images = QuestionImages(
                config.images, config.images_per, keep_features=config.keep_features
            )
        self._answers = AnswerRows(config, self.texts)

    def identity(self) -> dict[str, Any]:
        """Return the options that rows depend on."""
        options = former_names(asdict(self.config), "run")
        options = {k: v for k, v in options.items() if k not in _FREE}
        images = options.pop("pictures")
        if self.images is None:
            return options
        for place in ("cache_dir", "device"):
            del images[place]
        return {**options, "pictures": images, **self.images.fingerprint()}

    def prepare(self, model: LateFusionModel, dataset: RecordDataset, world: World) -> None:
        """Make all images, encode and score them; every process calls this together.

        Raises:
            ConfigError: the data set holds no questions, or images have no weights.
        """
        if not hasattr(dataset, "question"):
            raise ConfigError(
                f"run.task: visual_questions asks benchmarks; '{dataset.name}' is none"
            )
        bench = cast("BenchmarkDataset", dataset)
        self.texts.set_model(model)
        self.texts.check_kind(bench.kind)
        if self.images is None:
            return
        threshold = self.config.images.skip_when_certain
        if threshold is not None:
            self.images.skipped = certain_questions(
                lambda requests: self._text_only(model, requests),
                self.texts,
                self._answers,
                bench,
                world,
                model=f"{model.text_fingerprint()} {model.device.type}",
                cache=self.images.store.cache,
                threshold=threshold,
            )
        self.images.prepare(model, bench, world)

    def _text_only(self, model: LateFusionModel, requests: list[TextRequest]) -> dict[str, Tensor]:
        """Return `log_probs.text` of rows."""
        import torch

        samples = collate_requests(requests, self.texts.pad, share=not self.texts.masked)
        # in full precision whatever the run evaluates in: the answers are kept for all of them
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            return _log_probs(model, samples, {"": {}}, ["text"])

    def load_unit(self, dataset: RecordDataset, plan: Plan, unit: int) -> QuestionBatch:
        """Tokenize one unit's questions and read their images, each distinct one once."""
        bench = cast("BenchmarkDataset", dataset)
        batch = QuestionBatch(unit, [], {})
        own_images = self.images is not None and self.config.images_per == "prompt"
        for index in plan.rows(unit).tolist():
            try:
                question = bench.question(index)
                place = len(batch.questions)
                requests = self.texts.requests(question, place, own_images=own_images)
            except RecordError as error:
                batch.rejects.append(self.reject(dataset, index, error.reason))
                continue
            batch.questions.append(question)
            batch.rows.append(dataset.row(index))
            batch.requests += requests
        if batch.requests:
            batch.requests = split_targets(batch.requests)
            written = batch.questions[0].kind == "generate"
            share = not (written or self.texts.masked)
            batch.samples = collate_requests(batch.requests, self.texts.pad, share=share)
            if self.images is not None:
                self._add_images(batch, self.images, bench)
        return batch

    def _add_images(
        self, batch: QuestionBatch, images: QuestionImages, dataset: BenchmarkDataset
    ) -> None:
        """Add images, `image_index` `(B, K)` and `scores` `(B, K)`, and those of the control.

        Index -1 is no image: questions that need none, and withheld images, at the end. If images
        are gone from the cache, the whole unit is rejected.
        """
        import torch

        batch.sets = [images.sets(question) for question in batch.questions]
        sets_by_owner = {"": [_set_of(batch.sets, request) for request in batch.requests]}
        if "shuffled" in self.config.columns:
            foreign = [
                images.sets(control_question(dataset, q.index, images.skipped)) if own else []
                for q, own in zip(batch.questions, batch.sets, strict=True)
            ]
            sets_by_owner["other_"] = [_set_of(foreign, request) for request in batch.requests]
        distinct = dict.fromkeys(r for sets in sets_by_owner.values() for one in sets for r in one)
        if not distinct:
            return
        places = {request: place for place, request in enumerate(distinct)}
        try:
            batch.samples |= images.load(list(distinct), dataset)
        except RecordError as error:
            batch.rejects += [self.reject(dataset, row.index, error.reason) for row in batch.rows]
            batch.rows, batch.questions, batch.requests, batch.samples = [], [], [], {}
            batch.again = True  # the next start makes what is gone
            return
        most = max(len(one) for sets in sets_by_owner.values() for one in sets)
        for owner, sets in sets_by_owner.items():
            index = [[places[r] for r in one] + [-1] * (most - len(one)) for one in sets]
            batch.samples[f"{owner}drawn_index"] = torch.tensor(index)
            if images.weighed:
                scores = [
                    [images.score(r) or 0.0 for r in one] + [0.0] * (most - len(one))
                    for one in sets
                ]
                batch.samples[f"{owner}scores"] = torch.tensor(scores)

    def predict(self, model: LateFusionModel, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `log_probs.<column>` `(B, R, C)`, or generated `tokens.<column>` `(B, n)`.

        Each distinct text runs through the language model once for all columns, each distinct
        image through the tower once; `image_weights` `(B, K)` are those of the images.
        """
        images = _images(model, batch.samples)
        if "positions" not in batch.samples:
            return self._written(model, batch.samples, images)
        own = [column for column in self.config.shown if column in _OWN]
        outputs = _log_probs(model, batch.samples, images, own)
        for column in self.config.shown:  # a unit without any image
            if column not in ("text", "best_of_n"):
                outputs.setdefault(f"log_probs.{column}", outputs["log_probs.text"])
        return outputs | _image_weights(model, images)

    def _written(
        self, model: LateFusionModel, samples: Samples, images: Images
    ) -> dict[str, Tensor]:
        config, rows = self.config, samples["text_index"]
        outputs = {}
        for column in config.shown:
            options: dict[str, Any] = {
                "attention_mask": samples["attention_mask"][rows],
                "max_new_tokens": config.max_new_tokens,
                "eos_token_id": self.texts.ends or None,
                "pad_token_id": self.texts.pad,
                "stop": self._stop(),
            }
            if column == "best_of_n":
                options["num_beams"] = config.samples
            elif column != "text":
                options |= images["other_" if column == "shuffled" else ""]
                options["mixing"] = model.mixing(_OWN.get(column))
            outputs[f"tokens.{column}"] = model.generate(samples["input_ids"][rows], **options)
        return outputs | _image_weights(model, images)

    def _stop(self) -> Callable[[Tensor], Tensor]:
        import torch

        tokenizer = self.texts.tokenizer

        def stop(tokens: Tensor) -> Tensor:
            texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            return torch.tensor([is_finished(text) for text in texts], dtype=torch.bool)

        return stop

    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return each question's answers by column and rule, and its images."""
        assert isinstance(batch, QuestionBatch)
        rows = []
        payloads = self._answers.payloads(batch.questions, batch.requests, outputs)
        for place, (question, payload) in enumerate(zip(batch.questions, payloads, strict=True)):
            if self.images is not None and "reject" not in payload:
                payload["pictures"] = self._described(batch, place, outputs.get("image_weights"))
                withheld = self.images.withheld_of(question)
                payload |= {"withheld": withheld} if withheld else {}
                shown = self.images.shown(batch.sets[place])
                payload |= {} if shown is None else {"shown": shown}
            rows.append((question.index, payload))
        return rows

    def _described(
        self, batch: QuestionBatch, place: int, image_weights: Tensor | None
    ) -> list[list[dict[str, Any]]]:
        """Return prompt, index, score and weight of each image of each set of a question."""
        images, sets = self.images, batch.sets[place]
        assert images is not None
        rows = {
            request.prompt % len(sets): row
            for row, request in enumerate(batch.requests)
            if request.question == place and sets
        }
        described = []
        for number, requests in enumerate(sets):
            weights: list[Any] = [None] * len(requests)
            if image_weights is not None and requests:
                weights = image_weights[rows[number]].tolist()[: len(requests)]
            described.append(
                [
                    {**r._asdict(), "score": images.score(r), "weight": weight}
                    for r, weight in zip(requests, weights, strict=True)
                ]
            )
        return described

    def write_results(self, results: Results) -> dict[str, Any]:
        """Write `result/<name>.jsonl`, `results.json`, `rejects.jsonl` and `report.html`.

        Names start with `<split>_` for splits other than `test`.

        Returns:
            `agg_metrics`: accuracy (written answers: exact match), 0 to 1, of the main rule in the
            column `pictures`, or `text` without images; counts; and each column's figure.
        """
        store = self.images.store if self.images is not None and results.full else None
        return write_results(results, self.config, store)


def _set_of(sets: list[list[ImageSet]], request: TextRequest) -> ImageSet:
    own = sets[request.question]
    return own[request.prompt % len(own)] if own else ()


def _images(model: LateFusionModel, samples: Samples) -> Images:
    """Return the model's inputs of own and of foreign images."""
    if "drawn_index" not in samples:
        return {}
    features = samples.get("vision_features")
    if features is None:
        features = model.encode_frozen(samples["image"])
    images: Images = {}
    for owner in ("", "other_"):
        if f"{owner}drawn_index" in samples:
            index = samples[f"{owner}drawn_index"]
            images[owner] = {"vision_features": features, "image_index": index}
            if f"{owner}scores" in samples:
                images[owner]["scores"] = samples[f"{owner}scores"]
    return images


def _log_probs(
    model: LateFusionModel, samples: Samples, images: Images, columns: list[str]
) -> dict[str, Tensor]:
    """Return log-probabilities of columns with own images, and of `shuffled` if present."""
    prefixes = None
    if "prefix_length" in samples:
        prefixes = model.shared_starts(
            samples["prefix_length"], samples["prefix_first"], samples["prefix_of"]
        )
    text = model.encode_text(samples["input_ids"], samples["attention_mask"], prefixes)
    inputs = {name: samples[name] for name in _TEXT} | {"text_hidden": text.hidden}
    own = images.get("", {})
    mixing = {c: model.mixing(_OWN[c]) for c in columns if own or c == "text"}
    outputs: dict[str, Tensor] = model.predict({**inputs, **own}, mixing)
    if "other_" in images:
        outputs |= model.predict({**inputs, **images["other_"]}, {"shuffled": model.mixing()})
    return outputs


def _image_weights(model: LateFusionModel, images: Images) -> dict[str, Tensor]:
    """Return `image_weights` `(B, K)`, unless they follow from what each image predicts."""
    if "" not in images:
        return {}
    scores, index = images[""].get("scores"), images[""]["image_index"]
    weights, _ = model.mixing().mixing_weights(scores, index >= 0)
    return {} if weights is None else {"image_weights": weights}
