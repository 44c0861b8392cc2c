"""Late fusion trained on captions, and its loss on held-out ones with and without their images.

Shapes: B texts, L tokens, R predicted tokens of a text, P images of a batch, C token ids of the
loss's vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common import dist
from lavis.common.config.renamed import former_names
from lavis.common.errors import NothingDoneError, RecordError
from lavis.common.registry import tasks
from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.rows import DrawsImages, row_random
from lavis.tasks.base import BaseTask, LateFusionModel, NumberedRow, Samples, UnitBatch
from lavis.tasks.language_modeling.config import LanguageModelingConfig
from lavis.tasks.language_modeling.tokens import CaptionTokenizer, Tokens, target_positions
from lavis.tasks.rows import JsonArray, Results

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lavis.common.config.run import RunConfig
    from lavis.common.dist import World
    from lavis.datasets.base import RecordDataset
    from lavis.generators.store import ImageStore
    from lavis.tasks.language_modeling.states import TextStates
    from lavis.tasks.planning import Plan

logger = logging.getLogger(__name__)

_CHUNK = 64  # images between two heartbeats
_ROWS = 256  # rows whose logits over the vocabulary exist at the same time
_TEXT_PARTS = ("input_ids", "attention_mask", "labels", "text_hidden")
_TEXTS = 1024  # texts that are tokenized at a time


@tasks.register("visual_language_modeling")
class VisualLanguageModelingTask(BaseTask[LateFusionModel]):
    """Next tokens of captions (bert: hidden ones), from the text and one image of it."""

    config_class: ClassVar[type] = LanguageModelingConfig
    config: LanguageModelingConfig

    def __init__(self, config: LanguageModelingConfig) -> None:
        from lavis.generators.build import placed

        super().__init__(config)
        self.texts = CaptionTokenizer.load(
            config.tokenizer, config.max_length, mlm_probability=config.mlm_probability
        )
        self._vocabulary: Tensor | None = None
        self._states: TextStates | None = None
        self._store: ImageStore | None = None
        self._images_config = placed(config.images)
        self._filled: set[int] = set()
        self._width = 0
        self._fills_masks = False

    def identity(self) -> dict[str, Any]:
        """Return the options that losses depend on."""
        options = former_names(asdict(self.config), "run")
        for place in ("cache_dir", "device"):
            del options["pictures"][place]
        del options["export_vlmig"]
        if self._vocabulary is not None:
            digest = hashlib.sha256(self._vocabulary.numpy().tobytes()).hexdigest()
            options["vocabulary"] = digest[:16]
        if self._store is not None:
            options["generator"] = self._store.fingerprint()
        return options

    # What training and evaluation need before they start

    def prepare_training(
        self,
        model: LateFusionModel,
        datasets: Sequence[RecordDataset],
        *,
        epoch: int,
        run: RunConfig,
        world: World,
        folder: Path,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Make the images and text states of a pass over the data, and its vocabulary.

        Raises:
            ConfigError: the model cannot be exported by `run.export_vlmig`.
        """
        if self.config.export_vlmig:
            model.check_exportable()
        self._set_model(model)
        for dataset in datasets:
            self._make_images(dataset, epoch, run.seed, world)
        if self._filled >= {id(dataset) for dataset in datasets}:
            return
        self._cut_texts(model, datasets[0])
        if isinstance(self.config.loss_vocabulary, list):
            self._vocabulary = self.texts.tokens_of_words(self.config.loss_vocabulary)
        elif self.config.loss_vocabulary == "seen":
            self._vocabulary = self._seen_tokens(datasets, epoch, run.seed, world)
        if run.cache_features and not model.fills_masks:
            from lavis.tasks.language_modeling.states import TextStates

            place = folder / f"text_states_{run.amp_dtype if run.amp else 'plain'}"
            training = model.training
            model.train(False)
            with autocast():
                self._states = TextStates.of(model, place)
                for dataset in datasets:
                    tokens = self._tokens_of(dataset, epoch, run.seed)
                    self._states.fill(model, tokens, world=world, batch_size=run.batch_size_eval)
            model.train(training)
        self._filled |= {id(dataset) for dataset in datasets}

    def prepare_images(self, dataset: RecordDataset, world: World) -> None:
        """Generate the images that evaluate a data set without its own."""
        self._make_images(dataset, 0, 0, world)

    def prepare(self, model: LateFusionModel, dataset: RecordDataset, world: World) -> None:
        """Set up batches for the model."""
        self._set_model(model)
        self._cut_texts(model, dataset)

    def _set_model(self, model: LateFusionModel) -> None:
        self.texts.check_reader(model)
        self._width, self._fills_masks = model.vision_width, model.fills_masks

    def _cut_texts(self, model: LateFusionModel, dataset: RecordDataset) -> None:
        """Limit text length to the language model's positions."""
        most = model.longest_text(getattr(dataset.vis_processor, "image_size", None))
        own = self.config.max_length
        if most is not None and (own is None or most < own):
            self.texts.max_length = most
            logger.info("texts are cut at %d tokens, the language model's most", most)

    def _make_images(self, dataset: RecordDataset, epoch: int, seed: int, world: World) -> None:
        """Fill the image store for a data set that draws on one."""
        if not isinstance(dataset, DrawsImages) or not dataset.has_images:
            return
        from lavis.generators.base import ImageRequest

        if self._store is None:
            from lavis.generators.build import build_store

            self._store = build_store(self._images_config)
        dataset.use_images(self._store, seed=self.config.images.seed)
        distinct = dict.fromkeys(dataset.image_requests(epoch, seed))
        requests = [ImageRequest(*request) for request in distinct][world.rank :: world.size]
        for start in range(0, len(requests), _CHUNK):
            part = requests[start : start + _CHUNK]
            self._store.fill(part, rank=0, world_size=1, progress=False)
            world.beat(f"images of {dataset.name}: {start + len(part)} of {len(requests)}")
        self._store.generator.release()
        withheld = sum(map(self._store.is_withheld, requests))
        withheld = sum(world.gather(withheld, f"withheld images of {dataset.name}"))
        if withheld and world.is_main:
            logger.warning(
                "%s: %d images are withheld by the generator's safety checker; their rows are "
                "set aside",
                dataset.name,
                withheld,
            )
        world.barrier(f"images of {dataset.name}")

    def _tokens_of(
        self, dataset: RecordDataset, epoch: int, seed: int, part: slice = slice(None)
    ) -> Iterator[Tokens]:
        """Yield the tokens of an epoch's texts."""

        numbers = range(len(dataset))[part]
        for start in range(0, len(numbers), _TEXTS):
            rows = []
            for index in numbers[start : start + _TEXTS]:
                try:
                    rows.append(dataset.row(index, row_random(seed, epoch, index)))
                except RecordError:
                    continue
            samples: dict[str, Any] = {"text_input": [t for row in rows for t in row.all_texts]}
            if rows and "token_ids" in rows[0].targets:
                samples["token_ids"] = [row.targets["token_ids"] for row in rows]
            yield from self.texts.tokens(samples)

    def _seen_tokens(
        self, datasets: Sequence[RecordDataset], epoch: int, seed: int, world: World
    ) -> Tensor:
        import torch

        part = slice(world.rank, None, world.size)
        mine = {
            token
            for dataset in datasets
            for tokens in self._tokens_of(dataset, epoch, seed, part)
            for token in tokens
        }
        token_ids = set[int]().union(*world.gather(mine, "vocabulary"))
        logger.info("the loss is over %d tokens, those of the training texts", len(token_ids))
        return torch.tensor(sorted(token_ids), dtype=torch.long)

    # Steps

    def prepare_batch(self, samples: Samples, generator: torch.Generator | None = None) -> Samples:
        """Add a batch's tokens, labels, and the states of its texts if these are kept."""
        tokens = self.texts.tokens(samples)
        batch = self.texts.batch(tokens)
        if self._fills_masks:
            batch = self.texts.mask(batch, generator)
        if self._states is not None:
            batch["text_hidden"] = self._states.batch(tokens)
        return {**samples, **batch}

    def train_step(self, model: LateFusionModel, samples: Samples) -> dict[str, Tensor]:
        """Return `loss`, the mean over the predicted tokens of all processes' texts."""
        if "labels" not in samples:  # without the loader that calls `prepare_batch`
            self._fills_masks = model.fills_masks
            samples = self.prepare_batch(samples)
        inputs = {name: samples[name] for name in _TEXT_PARTS if name in samples}
        inputs |= self._images(samples)
        if self._vocabulary is not None:
            inputs["loss_vocabulary"] = self._vocabulary
        outputs = model(inputs)
        return {"loss": outputs["loss"] * dist.share_of_mean(outputs["targets"])}

    def _images(self, samples: Samples) -> Samples:
        """Return the images of a batch and `image_index` `(B, 1)`.

        Texts without images see one token of zeros, so that the block learns from them too.
        """
        import torch

        names = [name for name in ("vision_features", "image") if name in samples]
        if not names:
            index = torch.zeros(len(samples["text_input"]), 1, dtype=torch.long)
            return {"vision_features": torch.zeros(1, 1, self._width), "image_index": index}
        images = samples[names[0]]
        if self.config.blank_images:
            images = torch.zeros_like(images)
        index = torch.as_tensor(samples["image_index"], dtype=torch.long)[:, None]
        return {names[0]: images, "image_index": index}

    # Evaluation

    def load_unit(self, dataset: RecordDataset, plan: Plan, unit: int) -> UnitBatch:
        """See `BaseTask`; adds tokens and labels."""
        batch = super().load_unit(dataset, plan, unit)
        if batch.rows:
            batch.samples |= self._labelled(batch.samples)
        return batch

    def _labelled(self, samples: Samples) -> dict[str, Tensor]:
        """Return the tokens and labels of an evaluated batch."""
        tokens = self.texts.tokens(samples)
        batch = self.texts.batch(tokens)
        return self.texts.mask_alike(tokens, batch) if self._fills_masks else batch

    def predict(self, model: LateFusionModel, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `loss` and `text_loss` `(B,)`, means over each text's tokens, and their number.

        Both are over the same tokens: those that the text alone can predict too, so all but the
        first (bert: hidden ones, the same at each evaluation). With `loss_vocabulary: seen` while
        training, probabilities are over that vocabulary.
        """
        import torch

        inputs = batch.samples
        if "labels" not in inputs:  # without `load_unit`
            self._fills_masks = model.fills_masks
            inputs = self._labelled(inputs)
        device = model.device
        positions, targets, valid = (
            value.to(device) for value in target_positions(inputs, masked=model.fills_masks)
        )
        vocabulary = None if self._vocabulary is None else self._vocabulary.to(device)
        if vocabulary is not None:
            place = torch.searchsorted(vocabulary, targets).clamp(max=len(vocabulary) - 1)
            valid = valid & (vocabulary[place] == targets)
            targets = place
        images = self._images(batch.samples)
        features = images.get("vision_features")
        features = model.encode_frozen(images["image"]) if features is None else features
        text = model.encode_text(inputs["input_ids"], inputs["attention_mask"])
        index = images["image_index"].to(device)
        fused = model.fuse(text, features.to(device), index, positions)[:, 0]  # (B, R, H)
        plain = text.hidden.gather(1, positions[..., None].expand(fused.shape))
        count = valid.sum(dim=1)
        outputs = {"tokens": count}
        for name, rows in (("loss", fused), ("text_loss", plain)):
            losses = torch.zeros(valid.shape, device=device)
            losses[valid] = _losses(model, rows[valid], targets[valid], vocabulary)
            outputs[name] = losses.sum(dim=1) / count.clamp(min=1)
        return outputs

    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return each text's losses (null if no token was predicted) and number of tokens."""
        rows = []
        columns = [outputs[name].tolist() for name in ("tokens", "loss", "text_loss")]
        for row, count, loss, text_loss in zip(batch.rows, *columns, strict=True):
            losses = {"loss": loss, "text_loss": text_loss} if count else {}
            payload = {**row.fields, "index": row.index, "text": row.text, "tokens": count}
            rows.append((row.index, {**payload, "loss": None, "text_loss": None, **losses}))
        return rows

    def write_results(self, results: Results) -> dict[str, Any]:
        """Write `result/<name>.json`, every row with its losses.

        Returns:
            `loss`, `perplexity`, and both of the text alone, over all predicted tokens; `rows`,
            `rejected`, `tokens`; `agg_metrics` is the negative loss.

        Raises:
            NothingDoneError: no token of any row was predicted.
        """
        rows = rejected = tokens = 0
        total = {"loss": 0.0, "text_loss": 0.0}
        with AtomicFile(results.score_path(".json")) as file:
            array = JsonArray(file)
            for _, raw in results.reader.iterate_raw():
                array.write([raw])
                row = json.loads(raw)
                rows += 1
                rejected += "reject" in row
                count = row.get("tokens", 0)
                tokens += count
                for key in total if count else ():
                    total[key] += count * row[key]
            array.close()
        if not tokens:
            raise NothingDoneError(
                f"datasets.{results.dataset.name}: {rows} rows, {rejected} of them rejected, and "
                "no token to predict; see the rejects in the result file"
            )
        means = {key: value / tokens for key, value in total.items()}
        return {
            "agg_metrics": -means["loss"],
            **means,
            "perplexity": math.exp(min(means["loss"], 700)),
            "text_perplexity": math.exp(min(means["text_loss"], 700)),
            "rows": rows,
            "rejected": rejected,
            "tokens": tokens,
        }

    def finish_epoch(self, model: LateFusionModel, *, epoch: int, world: World) -> None:
        """Write the released code's file of the whole model, if the run has `export_vlmig`."""
        if self.config.export_vlmig and world.is_main:
            path = Path(f"{self.config.export_vlmig}_{epoch}.bin").expanduser()
            model.export_vlmig_bin(path)
            logger.info("wrote %s", path)


def _losses(
    model: LateFusionModel, hidden: Tensor, targets: Tensor, vocabulary: Tensor | None
) -> Tensor:
    """Return the cross entropy `(n,)` of states `(n, H)`, logits computed in parts."""
    import torch
    import torch.nn.functional as F

    losses = [
        F.cross_entropy(
            model.logits(hidden[start : start + _ROWS], vocabulary),
            targets[start : start + _ROWS],
            reduction="none",
        )
        for start in range(0, max(len(hidden), 1), _ROWS)
    ]
    return torch.cat(losses).float()
