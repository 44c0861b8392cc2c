"""Answers benchmark questions from the text alone and with images, side by side.

Shapes: T distinct texts and B rows of a unit, L tokens, R read positions, C tokens read at one,
N distinct images, K images of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import ConfigError, RecordError
from lavis.common.registry import tasks
from lavis.tasks.base import BaseTask, LateFusionModel, NumberedRow, UnitBatch
from lavis.tasks.questions.answers import AnswerRows
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.gate import certain_questions
from lavis.tasks.questions.images import ImageSet, QuestionImages, others
from lavis.tasks.questions.reading_metrics import is_finished
from lavis.tasks.questions.requests import Ask, QuestionTokenizer, split_reads, text_rows
from lavis.tasks.questions.results import write_results
from lavis.tasks.rows import Results

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.base import RecordDataset
    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.datasets.benchmarks.question import Question

_OWN = {"text": 0, "single": 1, "pictures": None}  # columns of a question's own images
_TEXT = ("input_ids", "attention_mask", "text_index", "positions", "token_ids")
_UNSCORED = {
    "keep_features", "main_rule", "report_examples", "resamples",
}  # fmt: skip  # options that change no row


@dataclass
class QuestionBatch(UnitBatch):
    """One unit of questions.

    Attributes:
        questions: those that can be asked.
        asks: the B rows.
        sets: of each question, its sets of images.
    """

    questions: list[Question] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    sets: list[list[ImageSet]] = field(default_factory=list)


@tasks.register("visual_questions")
class VisualQuestionsTask(BaseTask[LateFusionModel]):
    """Benchmarks of late fusion: next words, multiple choice, written answers."""

    config_class: ClassVar[type] = VisualQuestionsConfig

    def __init__(self, config: VisualQuestionsConfig) -> None:
        super().__init__(config)
        self.config: VisualQuestionsConfig = config
        self.texts = QuestionTokenizer.load(
            config.tokenizer,
            config.max_tokens,
            cut=config.long_texts == "cut",
            first_only="corrected" not in config.protocols,
        )
        self.pictures: QuestionImages | None = None
        if config.pictures.num_images:
            self.pictures = QuestionImages(
                config.pictures, config.pictures_per, keep_features=config.keep_features
            )
        self._own = self.pictures is not None and config.pictures_per == "prompt"
        self._answers = AnswerRows(config, self.texts)

    def identity(self) -> dict[str, Any]:
        """Return the options that rows depend on."""
        options = {k: v for k, v in asdict(self.config).items() if k not in _UNSCORED}
        images = options.pop("pictures")
        if self.pictures is None:
            return options
        for place in ("cache_dir", "device"):
            del images[place]
        return {**options, "pictures": images, **self.pictures.fingerprint()}

    def prepare(self, model: Any, dataset: RecordDataset, world: Any) -> None:
        """Make all images, encode and score them; every process calls this together.

        Raises:
            ConfigError: the data set holds no questions, or images have no weights.
        """
        if not hasattr(dataset, "question"):
            raise ConfigError(
                f"run.task: visual_questions asks benchmarks; '{dataset.name}' is none"
            )
        bench: BenchmarkDataset = dataset  # type: ignore[assignment]
        self.texts.read_by(model)
        self.texts.check_kind(bench.kind)
        if self.pictures is None:
            return
        threshold = self.config.pictures.skip_when_certain
        if threshold is not None:
            self.pictures.skipped = certain_questions(
                lambda asks: self._text_only(model, asks),
                self.texts,
                self._answers,
                bench,
                world,
                model=f"{model.text_fingerprint()} {model.device.type}",
                cache=self.pictures.store.cache,
                threshold=threshold,
            )
        self.pictures.prepare(model, bench, world)

    def _text_only(self, model: Any, asks: list[Ask]) -> dict[str, Tensor]:
        """Return `log_probs.text` of rows."""
        import torch

        samples = text_rows(asks, self.texts.pad, share=not self.texts.masked)
        # in full precision whatever the run evaluates in: the answers are kept for all of them
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            return self._read(model, samples, {"": {}}, ["text"])

    def load_unit(self, dataset: RecordDataset, plan: Any, unit: int) -> QuestionBatch:
        """Tokenize one unit's questions and read their images, each distinct one once."""
        bench: BenchmarkDataset = dataset  # type: ignore[assignment]
        batch = QuestionBatch(unit, [], {})
        for index in plan.rows(unit).tolist():
            try:
                question = bench.question(index)
                asks = self.texts.asks(question, len(batch.questions), own_images=self._own)
            except RecordError as error:
                batch.rejects.append(self.reject(dataset, index, error.reason))
                continue
            batch.questions.append(question)
            batch.rows.append(dataset.row(index))
            batch.asks += asks
        if batch.asks:
            batch.asks = split_reads(batch.asks)
            written = batch.questions[0].kind == "generate"
            share = not (written or self.texts.masked)
            batch.samples = text_rows(batch.asks, self.texts.pad, share=share)
            if self.pictures is not None:
                self._add_images(batch, bench)
        return batch

    def _add_images(self, batch: QuestionBatch, dataset: BenchmarkDataset) -> None:
        """Add images, `image_index` `(B, K)` and `scores` `(B, K)`, and those of the control.

        Rows have -1 where they have no image: questions that need none, and in the place of
        withheld images, at the end. Where images are gone from the cache, the whole unit is set
        aside.
        """
        import torch

        images = self.pictures
        assert images is not None
        batch.sets = [images.sets(question) for question in batch.questions]
        wanted = {"": [_set_of(batch.sets[ask.question], ask) for ask in batch.asks]}
        if "shuffled" in self.config.columns:
            foreign = [
                images.sets(others(dataset, q.index, images.skipped)) if own else []
                for q, own in zip(batch.questions, batch.sets, strict=True)
            ]
            wanted["other_"] = [_set_of(foreign[ask.question], ask) for ask in batch.asks]
        distinct = dict.fromkeys(r for sets in wanted.values() for one in sets for r in one)
        if not distinct:
            return
        places = {request: place for place, request in enumerate(distinct)}
        try:
            batch.samples |= images.load(list(distinct), dataset)
        except RecordError as error:
            rejects = [self.reject(dataset, row.index, error.reason) for row in batch.rows]
            batch.rejects += rejects
            batch.rows, batch.questions, batch.asks, batch.samples = [], [], [], {}
            batch.again = True  # the next start makes what is gone
            return
        most = max(len(one) for sets in wanted.values() for one in sets)
        for prefix, sets in wanted.items():
            rows = [[places[r] for r in one] for one in sets]
            index = torch.tensor([row + [-1] * (most - len(row)) for row in rows])
            batch.samples[f"{prefix}drawn_index"] = index
            if images.weighed:
                values = [[images.score(r) or 0.0 for r in one] for one in sets]
                scores = [row + [0.0] * (most - len(row)) for row in values]
                batch.samples[f"{prefix}scores"] = torch.tensor(scores)

    def predict(self, model: Any, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `log_probs.<column>` `(B, R, C)`, or `tokens.<column>` `(B, n)` as written.

        Each distinct text runs through the language model once for all columns, each distinct
        image through the tower once; `shares` `(B, K)` are the weights that images had.
        """
        assert isinstance(batch, QuestionBatch)
        if not batch.rows:
            return {}
        samples = batch.samples
        seen = self._seen(model, samples)
        if "positions" not in samples:
            return self._written(model, batch, seen)
        own = [column for column in self.config.shown if column in _OWN]
        outputs = self._read(model, samples, seen, own)
        for column in self.config.shown:  # a unit without any image
            if column not in ("text", "best_of_n"):
                outputs.setdefault(f"log_probs.{column}", outputs["log_probs.text"])
        return outputs | _shares(model, seen)

    @staticmethod
    def _read(
        model: Any, samples: dict[str, Any], seen: dict[str, dict[str, Any]], own: list[str]
    ) -> dict[str, Tensor]:
        """Return log-probabilities of the columns `own`, and of `shuffled` where it is seen."""
        text = model.encode_text(
            samples["input_ids"], samples["attention_mask"], _starts(model, samples)
        )
        given = {name: samples[name] for name in _TEXT} | {"text_hidden": text.hidden}
        images = seen.get("", {})
        ways = {column: model.mixing(_OWN[column]) for column in own if images or column == "text"}
        outputs = model.predict({**given, **images}, ways)
        if "other_" in seen:
            ways = {"shuffled": model.mixing()}
            outputs |= model.predict({**given, **seen["other_"]}, ways)
        return outputs

    def _seen(self, model: Any, samples: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what the model needs of own images (``) and of foreign ones (`other_`)."""
        if "drawn_index" not in samples:
            return {}
        features = samples.get("vision_features")
        if features is None:
            features = model.encode_frozen(samples["image"])
        found = {}
        for prefix in ("", "other_"):
            if f"{prefix}drawn_index" in samples:
                found[prefix] = {
                    "vision_features": features,
                    "image_index": samples[f"{prefix}drawn_index"],
                }
                if f"{prefix}scores" in samples:
                    found[prefix]["scores"] = samples[f"{prefix}scores"]
        return found

    def _written(
        self, model: Any, batch: QuestionBatch, seen: dict[str, dict[str, Any]]
    ) -> dict[str, Tensor]:
        samples, config = batch.samples, self.config
        rows = samples["text_index"]
        ids = samples["input_ids"][rows]
        options: dict[str, Any] = {
            "attention_mask": samples["attention_mask"][rows],
            "max_new_tokens": config.max_new_tokens,
            "eos_token_id": self.texts.ends or None,
            "pad_token_id": self.texts.pad,
            "stop": self._stop(),
        }
        outputs = {}
        for column in config.shown:
            given = dict(options)
            if column == "best_of_n":
                given["num_beams"] = config.samples
            elif column != "text":
                given |= seen["other_" if column == "shuffled" else ""]
                given["mixing"] = model.mixing(_OWN.get(column))
            outputs[f"tokens.{column}"] = model.generate(ids, **given)
        return outputs | _shares(model, seen)

    def _stop(self) -> Callable[[Tensor], Tensor]:
        import torch

        tokenizer = self.texts.tokenizer

        def stop(tokens: Tensor) -> Tensor:
            texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            return torch.tensor([is_finished(text) for text in texts], dtype=torch.bool)

        return stop

    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return each question's answers and marks by column and rule, and its images."""
        assert isinstance(batch, QuestionBatch)
        rows = []
        made = self._answers.payloads(batch.questions, batch.asks, outputs)
        for place, (question, payload) in enumerate(zip(batch.questions, made, strict=True)):
            if self.pictures is not None and "reject" not in payload:
                payload["pictures"] = self._described(batch, place, outputs)
                withheld = self.pictures.withheld_of(question)
                payload |= {"withheld": withheld} if withheld else {}
                shown = self.pictures.shown(batch.sets[place])
                payload |= {} if shown is None else {"shown": shown}
            rows.append((question.index, payload))
        return rows

    def _described(
        self, batch: QuestionBatch, place: int, outputs: dict[str, Tensor]
    ) -> list[list[dict[str, Any]]]:
        """Return prompt, index, score and weight of each image of each set of a question."""
        images, shares = self.pictures, outputs.get("shares")
        assert images is not None
        sets = batch.sets[place]
        rows = {
            ask.prompt % len(sets): row
            for row, ask in enumerate(batch.asks)
            if ask.question == place and sets
        }
        found = []
        for number, requests in enumerate(sets):
            weights: list[Any] = [None] * len(requests)
            if shares is not None and requests:
                weights = shares[rows[number]].tolist()[: len(requests)]
            found.append(
                [
                    {
                        "prompt": request.prompt,
                        "index": request.index,
                        "seed": request.seed,
                        "score": images.score(request),
                        "weight": weight,
                    }
                    for request, weight in zip(requests, weights, strict=True)
                ]
            )
        return found

    def write_results(self, results: Results) -> dict[str, Any]:
        """Write `result/<name>.jsonl`, `results.json`, `rejects.jsonl` and `report.html`.

        Names start with `<split>_` for splits other than `test`.

        Returns:
            `agg_metrics`: accuracy (written answers: exact match), 0 to 1, of the main rule in the
            column `pictures`, or `text` where no images are; counts; and each column's figure.
        """
        store = self.pictures.store if self.pictures is not None and results.full else None
        return write_results(results, self.config, store)


def _starts(model: Any, samples: dict[str, Any]) -> Any:
    """Return the beginnings that the unit's texts share, as the model takes them, or None."""
    if "start_length" not in samples:
        return None
    return model.shared_starts(samples["start_length"], samples["start_first"], samples["start_of"])


def _set_of(sets: list[ImageSet], ask: Ask) -> ImageSet:
    return sets[ask.prompt % len(sets)] if sets else ()


def _shares(model: Any, seen: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    """Return `shares` `(B, K)`, unless they follow from what each image predicts."""
    if "" not in seen:
        return {}
    index = seen[""]["image_index"]
    scores = seen[""].get("scores")
    shares, _ = model.mixing().shares(scores, index >= 0)
    return {} if shares is None else {"shares": shares}
