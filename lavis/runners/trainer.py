"""The training loop: batch, forward, backward, accumulate, clip, step, log, save, resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lavis.common.config.run import RunConfig
from lavis.common.dist import World, seed_everything
from lavis.common.logger import Meters, Progress, RunLog, Totals, means, merge_totals
from lavis.common.optim import build_optimizer, build_schedule, set_lr
from lavis.common.sharded import gather, whole
from lavis.datasets.base import RecordDataset, TrainingView
from lavis.runners.contracts import RunnerModel, RunnerTask
from lavis.runners.counting import Counting
from lavis.runners.features import FeatureBuilder, cache_root
from lavis.runners.guard import FiniteGuard
from lavis.runners.loader import (
    TrainBatch,
    TrainBatches,
    autocast,
    make_loader,
    to_device,
    training_dtype,
)
from lavis.runners.resume import (
    Checkpoint,
    TrainerState,
    replace_state,
    rng_state,
    set_rng_state,
    write_folder,
)
from lavis.runners.sampler import BatchRequest
from lavis.runners.sharding import Sharding, gather_optimizer, load_optimizer
from lavis.runners.tracking import track

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model epoch by epoch, on any number of processes.

    Args:
        model: as the task calls it; its trainable weights are float32.
        identity: what a checkpoint must have been written with to be resumed.
        features: None to run the vision tower at each step.
    """

    def __init__(
        self,
        *,
        task: RunnerTask,
        model: RunnerModel,
        datasets: Sequence[RecordDataset],
        counting: Counting,
        state: TrainerState,
        world: World,
        accelerator: Accelerator,
        run: RunConfig,
        run_log: RunLog,
        folder: Path,
        identity: Mapping[str, Any],
        features: FeatureBuilder | None = None,
        sharding: Sharding | None = None,
    ) -> None:
        self._task, self._model, self._world, self._run = task, model, world, run
        self._datasets, self.counting, self.state = list(datasets), counting, state
        self._accelerator, self._run_log, self._features = accelerator, run_log, features
        self._folder, self._prepared = folder, -1
        self.last, self.best = folder / "checkpoint_last", folder / "checkpoint_best"
        self._identity = dict(identity)
        self._dtype = training_dtype(run, world.device)
        self._schedule = build_schedule(
            run, max_epoch=counting.schedule_epochs, steps_per_epoch=counting.steps_per_epoch
        )
        groups = model.get_optimizer_params(run.weight_decay, run.lr_layer_decay)
        assert run.init_lr is not None, "checked by run.check_training()"
        optimizer = build_optimizer(groups, lr=run.init_lr, beta2=run.beta2)
        self._weights = [p for group in optimizer.param_groups for p in group["params"]]
        self._optimizer = accelerator.prepare_optimizer(optimizer)
        self._sharding = sharding or Sharding()
        self._wrapped = model if self._sharding else _wrap(accelerator, model)
        cache = features.features if features is not None else None
        views = [TrainingView(d, run.seed, cache) for d in self._datasets]
        self._batches = TrainBatches(views, task.prepare_batch)
        self._meters, self._interval = Meters(), Totals()
        self._guard = FiniteGuard(world)
        self._rejected: set[tuple[int, int]] = set()
        seed_everything(run.seed + world.rank)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: weights, optimizer, scaler, position and random states."""
        self._model.load_state(checkpoint.weights)
        load_optimizer(self._optimizer, checkpoint.tensors["optimizer"])
        scaler, saved = self._accelerator.scaler, checkpoint.tensors["scaler"]
        if scaler is not None and saved is not None:
            scaler.load_state_dict(saved)
        self.state = checkpoint.state
        world, then = self._world, checkpoint.state.world_size
        if then == world.size:
            set_rng_state(checkpoint.tensors["rng"][world.rank])
        else:
            logger.warning("resuming on %d processes what %d began", world.size, then)
            seed_everything(self._run.seed + world.rank + 7919 * (self.state.iteration + 1))
        self.state.world_size = world.size
        logger.info(
            "resumed %s: epoch %d, step %d, iteration %d",
            checkpoint.folder,
            self.state.epoch,
            self.state.step,
            self.state.iteration,
        )

    def run_epoch(self) -> None:
        """Train the rest of the current (inner) epoch, and save."""
        state, epoch = self.state, self.state.epoch
        steps = self.counting.steps(state)
        self.prepare(state.cursor.epoch)  # before loader processes start: they see what it sets
        self._model.train()
        loader = make_loader(
            self._batches,
            self._requests(),
            num_workers=self._run.num_workers,
            device=self._world.device,
        )
        progress = Progress(
            steps, f"epoch {epoch}", unit="steps", done=state.step, shown=self._world.is_main
        )
        begin = time.monotonic()
        for batch in loader:
            self._world.beat(f"iteration {state.iteration}")
            try:
                self._step(batch, steps)
            except RuntimeError as error:
                raise self._world.explain(error, f"iteration {state.iteration}") from error
            progress.add()
        progress.close()
        self._finish_epoch(time.monotonic() - begin)

    def prepare(self, epoch: int) -> None:
        """Make what a pass over the data needs, once: the task's part, then vision features."""
        if epoch == self._prepared:
            return
        # Ranks encode shares of different lengths; what is not cached they encode in step.
        with self._sharding.whole(layers=self._run.cache_features):
            self._task.prepare_training(
                self._model,
                self._datasets,
                epoch=epoch,
                run=self._run,
                world=self._world,
                folder=cache_root(self._folder),
                autocast=lambda: autocast(self._world.device, self._dtype),
            )
            if self._features is not None:
                for dataset in self._datasets:
                    self._features.for_training(dataset, epoch)
        self._prepared = epoch

    def _requests(self) -> Iterator[BatchRequest]:
        """Yield the epoch's batches; what a pass over the data needs comes before its first."""
        for request in self.counting.requests(self.state):
            if request.epoch != self._prepared:
                self.prepare(request.epoch)
                self._model.train()
            yield request

    def _step(self, batch: TrainBatch, steps: int) -> None:
        """Run one batch; after the last of a group, the optimizer's step.

        A group is `accum_grad_iters` batches, fewer at the end of the epoch: its loss is the mean
        over the group, and no gradient is left for the next epoch.
        """
        run, state = self._run, self.state
        self._note_rejects(batch)
        lr = self._schedule.lr(state.epoch, state.step)
        set_lr(self._optimizer, lr)
        first = state.step - state.step % run.accum_grad_iters
        group = min(run.accum_grad_iters, steps - first)
        samples = to_device(batch.samples, self._world.device)
        with self._synchronized(state.step + 1 == first + group):
            with autocast(self._world.device, self._dtype):
                losses = self._task.train_step(self._wrapped, samples)
            self._guard.update(state.iteration, losses["loss"])
            self._accelerator.backward(losses["loss"] / group)
        self._meters.update({name: value for name, value in losses.items() if "loss" in name})
        state.iteration += 1
        state.step += 1
        state.cursor = batch.request.after
        if state.step % run.accum_grad_iters == 0 or state.step == steps:
            self._update()
        if state.iteration % run.log_freq == 0:
            self._log(lr)

    def _synchronized(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a batch: ranks average gradients behind the last of a group only.

        A weight that the last batch leaves unused is averaged too, where an earlier one used it:
        DDP counts over the group. FSDP averages at each batch, as it holds no whole gradient.
        """
        if last or self._sharding:
            return nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(self._wrapped)
        return context

    def _update(self) -> None:
        run, state = self._run, self.state
        if run.max_grad_norm is not None:
            norm = self._accelerator.clip_grad_norm_(self._weights, run.max_grad_norm)
            assert isinstance(norm, Tensor)
            norm = whole(norm)
            self._meters.update({"grad_norm": norm})
            if self._dtype != torch.float16:  # there the scaler skips such a step
                self._guard.update(state.iteration - 1, norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        state.updates += 1
        if run.save_every_steps and state.updates % run.save_every_steps == 0:
            self.save_last()

    def _collect(self) -> None:
        """Add what all ranks measured since the last time to the interval and to the epoch."""
        part = merge_totals(self._world.gather(self._meters.take(), "losses"))
        self._interval = merge_totals([self._interval, part])
        self.state.totals = merge_totals([self.state.totals, part])

    def _log(self, lr: float) -> None:
        self._guard.check()
        self._collect()
        state = self.state
        values = {"lr": lr, **means(self._interval)}
        self._interval = {}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("epoch %d, step %d: %s", state.epoch, state.step, shown)
        place = {"epoch": state.epoch, "step": state.step, "iteration": state.iteration}
        self._run_log.metrics("train", {**place, **values})
        track(self._accelerator, values, kind="train", step=state.iteration)

    def _finish_epoch(self, seconds: float) -> None:
        self._guard.check()
        self._collect()
        state = self.state
        lr = self._schedule.lr(state.epoch, max(state.step - 1, 0))
        values = {"lr": lr, **means(state.totals)}
        state.cursor = self.counting.close(state.cursor)
        self._task.finish_epoch(self._model, epoch=state.epoch, world=self._world)
        state.epoch, state.step, state.totals = state.epoch + 1, 0, {}
        self.save_last()
        self._run_log.epoch("train", {**values, "epoch": state.epoch - 1, "seconds": seconds})
        place = {"epoch": state.epoch - 1, "iteration": state.iteration}
        self._run_log.metrics("train_epoch", {**place, **values})
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("epoch %d done: %s", state.epoch - 1, shown)

    def save_last(self) -> None:
        """Write `checkpoint_last`, from which a killed run goes on."""
        self._guard.check()
        self._guard.check_weights(self._weights, self.state.iteration)
        if self.state.step:  # an epoch's end has collected already
            self._collect()
        rng = self._world.gather(rng_state(), "random states")
        optimizer = gather_optimizer(self._optimizer, keep=self._world.is_main)
        weights = self._saved()
        if self._world.is_main:
            scaler = self._accelerator.scaler
            tensors = {
                "optimizer": optimizer,
                "scaler": None if scaler is None else scaler.state_dict(),
                "rng": rng,
            }
            write_folder(self.last, weights=weights, state=self._state_text(), tensors=tensors)

    def save_best(self) -> None:
        """Write `checkpoint_best`: weights, and when they were reached."""
        weights = self._saved()
        if self._world.is_main:
            write_folder(self.best, weights=weights, state=self._state_text())

    def note_validated(self) -> None:
        """Record in `checkpoint_last` that its epoch's validation is complete."""
        self.state.validated = self.state.epoch
        if self._world.is_main:
            replace_state(self.last, self._state_text())

    def _saved(self) -> dict[str, Tensor]:
        """Return the weights of a checkpoint; every rank must call this, rank 0 gets them."""
        model = self._model
        state = model.full_state_dict() if self._run.save_frozen else model.trainable_state_dict()
        return gather(state, keep=self._world.is_main)

    def _state_text(self) -> str:
        return self.state.to_json(identity=self._identity, run_id=self._world.run_id)

    def _note_rejects(self, batch: TrainBatch) -> None:
        for reject in batch.rejects:
            place = (batch.request.dataset, reject.index)
            if place not in self._rejected:
                self._rejected.add(place)
                if len(self._rejected) <= 10 or len(self._rejected) % 1000 == 0:
                    logger.warning(
                        "training without row %d of %s (%s); %d such rows so far",
                        reject.index,
                        self._datasets[batch.request.dataset].name,
                        reject.reason,
                        len(self._rejected),
                    )


def _wrap(accelerator: Accelerator, model: RunnerModel) -> nn.Module:
    """Return the model for several processes; the model itself keeps its own `forward`."""
    wrapped: nn.Module = accelerator.prepare_model(model)
    for name in ("forward", "_original_forward"):  # accelerate's own autocast: the loop opens one,
        model.__dict__.pop(name, None)  # and evaluation may want another
    return wrapped
