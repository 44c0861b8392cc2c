"""What every task does: plan units, load them, predict, turn outputs into rows, write results.

N texts of one unit ask about P distinct images; text n is about image `image_index[n]`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from lavis.common.errors import RecordError
from lavis.tasks.planning import Plan, load_or_make, make_plan
from lavis.tasks.rows import Results

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lavis.common.config.run import RunConfig
    from lavis.common.dist import World
    from lavis.common.storage.plan import RowReader
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.rows import Pixels, Row

Samples = dict[str, Any]  # what a data set collates, and what is added to it
NumberedRow = tuple[int, dict[str, Any]]  # row number, JSON-able payload
ModelT = TypeVar("ModelT")


class LateFusionModel(Protocol):
    """Part of `lavis.models.late_fusion.model.LateFusion` that tasks use; shapes stand there."""

    device: torch.device
    fills_masks: bool
    vocabulary: int
    vision_width: int
    training: bool

    def __call__(self, samples: Mapping[str, Any]) -> dict[str, Tensor]: ...
    def predict(self, samples: Mapping[str, Any], columns: Mapping[str, Any]) -> Any: ...
    def generate(self, input_ids: Tensor, **options: Any) -> Tensor: ...
    def mixing(self, num_images: int | None = None) -> Any: ...
    def shared_starts(self, length: int, first: Tensor, of: Tensor) -> Any: ...
    def encode_text(self, ids: Tensor, mask: Tensor | None = None, starts: Any = None) -> Any: ...
    def encode_frozen(self, image: Tensor) -> Tensor: ...
    def fuse(self, text: Any, features: Tensor, index: Tensor, positions: Tensor) -> Tensor: ...
    def logits(self, hidden: Tensor, vocabulary: Tensor | None = None) -> Tensor: ...
    def longest_text(self, image_size: int | None) -> int | None: ...
    def frozen_fingerprint(self) -> str: ...
    def text_fingerprint(self) -> str: ...
    def check_exportable(self) -> None: ...
    def export_vlmig_bin(self, path: Path) -> None: ...
    def train(self, mode: bool = True) -> Any: ...


@dataclass
class UnitBatch:
    """One unit, ready for the model.

    Attributes:
        unit: its number in the plan.
        rows: the N rows that can be scored, in the order of the samples.
        samples: the model's input; empty if no row can be scored.
        rejects: (row number, payload with `reject`, `file`, `line`) of the others.
        notes: for each text what the model tells of its score: columns of its row, or `reject`,
            why there is none, and `again`, that a later start may score it.
        inputs: notes of `common.storage.inputs` on the files that only this unit is made from.
        again: a row was rejected for a temporary cause, so the next start repeats the unit.
    """

    unit: int
    rows: list[Row]
    samples: Samples
    rejects: list[NumberedRow] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    again: bool = False

    def pin_memory(self) -> UnitBatch:
        """Return the unit with its tensors in pinned memory (torch's DataLoader calls this)."""
        samples = {
            name: value.pin_memory() if hasattr(value, "pin_memory") else value
            for name, value in self.samples.items()
        }
        return dataclasses.replace(self, samples=samples)


class UnitReading:
    """Rows and images of a unit, with notes on their files; `again` after a temporary failure."""

    def __init__(self, dataset: RecordDataset) -> None:
        self._dataset = dataset
        self._watch = dataset.watch(with_digests=dataset.reads_images)
        self.again = False

    def row(self, index: int) -> Row:
        """Return a row; raises `RecordError` as the data set does."""
        for one in self._dataset.inputs(index):
            self._watch.add(one)
        try:
            row = self._dataset.row(index)
        except RecordError as error:
            self._refuse(error)
            raise
        file = row.drawing.file if row.drawing is not None else None
        if file is not None and file.offset is None:  # others are parts of record files
            self._watch.add_known(file.path, [file.size, file.mtime_ns, file.ctime_ns])
        return row

    def image(self, row: Row) -> Pixels:
        """Return a row's image; raises `RecordError` as the data set does."""
        try:
            return self._dataset.image(row)
        except RecordError as error:
            self._refuse(error)
            raise

    def notes(self) -> list[Any]:
        """Return the state of the files, after all was read."""
        return self._watch.notes()

    def _refuse(self, error: RecordError) -> None:
        self.again = self.again or error.may_pass
        for path in error.paths:
            self._watch.add_refused(path)


class BaseTask(ABC, Generic[ModelT]):
    """One job over rows; knows neither devices nor processes.

    Attributes:
        free_options: options that change no row: what is made of finished rows, where things are.
    """

    config_class: ClassVar[type]
    free_options: ClassVar[frozenset[str]] = frozenset(
        {"report_metric", "report_examples", "report_traces"}
    )

    def __init__(self, config: Any) -> None:
        self.config = config

    def identity(self) -> dict[str, Any]:
        """Return the task's options on which rows depend, JSON-able: all but `free_options`."""
        if self.config is None:
            return {}
        options = dataclasses.asdict(self.config)
        return {name: value for name, value in options.items() if name not in self.free_options}

    # Before units are loaded

    def prepare_images(self, dataset: RecordDataset, world: World) -> None:
        """Generate the images of a data set that has none; before any is read or encoded."""

    def prepare(self, model: ModelT, dataset: RecordDataset, world: World) -> None:
        """Make what all units of `dataset` share; all processes call this, `model` in eval mode."""

    def plan(
        self,
        dataset: RecordDataset,
        batch_size: int,
        path: Path | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Return the units of a data set; they depend on the data and `batch_size` only.

        Every row is read once.

        Args:
            batch_size: texts to a unit.
            path: file of the plan (`.npz`), reused if it is of the same data.
            data: the data set's fingerprint, if the caller has it.
        """
        if path is not None:
            return load_or_make(Path(path), dataset, batch_size, data)
        return make_plan(dataset, batch_size)

    # Training

    def train_step(self, model: ModelT, samples: Samples) -> dict[str, Tensor]:
        """Return the model's losses by name, among them `loss`, the one to minimise."""
        losses: dict[str, Tensor] = model(samples)  # type: ignore[operator]
        return losses

    def prepare_training(
        self,
        model: ModelT,
        datasets: Sequence[RecordDataset],
        *,
        epoch: int,
        run: RunConfig,
        world: World,
        folder: Path,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Make what a pass over the training data needs; all processes call this before it.

        Args:
            model: on its device, not wrapped.
            epoch: number of the pass; with `run.seed` it fixes the rows' random numbers.
            autocast: gives the context that training steps run in.
        """

    def prepare_batch(self, samples: Samples, generator: torch.Generator | None = None) -> Samples:
        """Return a training batch as `train_step` takes it; called in loader processes.

        Args:
            samples: as the data set collates them; tensors that are added are pinned and moved.
            generator: of all random draws; the same for a batch whenever it is loaded.
        """
        return samples

    def finish_epoch(self, model: ModelT, *, epoch: int, world: World) -> None:
        """Write what the task writes at the end of an (inner) epoch; all processes call this.

        A run that is killed here trains the epoch's last steps again, and comes here again.

        Args:
            model: as trained so far, not wrapped.
        """

    # Units to rows

    def load_unit(self, dataset: RecordDataset, plan: Plan, unit: int) -> UnitBatch:
        """Read, draw and collate one unit, each distinct image once.

        A row that cannot be read is rejected, and so are all rows of an image that cannot.
        """
        import torch  # here, so that merging and reporting need none of its memory

        groups: dict[str, list[Row]] = {}
        batch = UnitBatch(unit, [], {})
        reading = UnitReading(dataset)
        for index in plan.rows(unit).tolist():
            try:
                row = reading.row(index)
            except RecordError as error:
                batch.rejects.append(self.reject(dataset, index, error.reason))
            else:
                groups.setdefault(row.image_key, []).append(row)
        images: list[Pixels] = []
        image_index: list[int] = []
        for group in groups.values():
            place = -1
            if dataset.has_images:
                try:
                    images.append(reading.image(group[0]))
                except RecordError as error:
                    batch.rejects += [
                        self.reject(dataset, row.index, error.reason) for row in group
                    ]
                    continue
                place = len(images) - 1
            image_index += [place] * len(group)
            batch.rows += group
        if batch.rows:
            stacks = bool(images) and isinstance(images[0], torch.Tensor)
            stacked = torch.stack(images) if stacks else images or None  # type: ignore[arg-type]
            batch.samples = dataset.collate(batch.rows, stacked, image_index)  # type: ignore[arg-type]
        batch.inputs, batch.again = reading.notes(), reading.again
        return batch

    @staticmethod
    def reject(dataset: RecordDataset, index: int, reason: str) -> NumberedRow:
        """Return the journal's row for a rejected record."""
        return index, {"reject": reason, **dataset.source(index)}

    @abstractmethod
    def predict(self, model: ModelT, batch: UnitBatch) -> dict[str, Tensor]:
        """Return the outputs of a unit with rows on the model's device, without waiting for it."""

    @abstractmethod
    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return number and payload of every row in `batch.rows`, one or more."""

    def rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return number and payload of every row of a unit, rejects first."""
        scored = self.scored_rows(batch, outputs) if batch.rows else []
        return [*batch.rejects, *scored]

    # Rows to results

    def finish(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        report: bool = True,
        model: Any = None,
    ) -> dict[str, Any]:
        """Write result files from all rows and return metrics, `agg_metrics` among them.

        Args:
            reader: every row of the data set, in its order.
            output_dir: scores go to `<output_dir>/result/<name>.json`.
            name: `<split>_epoch<epoch>`, as LAVIS names results.
            report: also write pages and tables for people; off while training.
            model: of the rows, where it is at hand, for pages that say more of some rows.
        """
        results = Results(reader, dataset, Path(output_dir), name, report, model)
        return self.write_results(results)

    @abstractmethod
    def write_results(self, results: Results) -> dict[str, Any]:
        """Write result files and return metrics; see `finish`."""
