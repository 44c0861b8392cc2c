"""One runner for plain python, torchrun and `accelerate launch`, on CPU and CUDA.

`RunnerBase` counts epochs, `RunnerIter` counts iterations; all else is the same.
"""

from __future__ import annotations

import atexit
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from lavis.common.checkpoint import read_state_dict
from lavis.common.config.loading import Config
from lavis.common.config.run import RunConfig
from lavis.common.dist import World, start
from lavis.common.errors import ConfigError, NothingDoneError, nearest
from lavis.common.logger import RunLog, setup_logging
from lavis.common.registry import runners
from lavis.common.sharded import is_wanted
from lavis.common.storage.atomic import recover_folder
from lavis.datasets.base import RecordDataset
from lavis.runners.contracts import RunnerModel, RunnerTask
from lavis.runners.counting import ByEpochs, ByIterations, Counting
from lavis.runners.evaluator import Evaluator
from lavis.runners.features import FeatureBuilder
from lavis.runners.identity import describe_environment, training_identity, write_provenance
from lavis.runners.loader import evaluation_dtype, training_dtype
from lavis.runners.resume import (
    MODEL,
    Checkpoint,
    TrainerState,
    check_identity,
    read_folder,
    rng_state,
    set_rng_state,
)
from lavis.runners.sampler import BatchSampler
from lavis.runners.sharding import Sharding, check_launch, shard
from lavis.runners.tracking import numbers, start_trackers, stop_trackers, track
from lavis.runners.trainer import Trainer

logger = logging.getLogger(__name__)

Splits = Mapping[str, RecordDataset]  # split -> data set


class Runner:
    """Trains and evaluates; every rank makes one and calls the same methods.

    Args:
        model: built and loaded, on any device.
        datasets: data set name -> split -> data set.
        world: None to join the processes the launcher started.

    Example:
        >>> config = load_config("run.yaml", ["run.output_dir=output"])
        >>> runner = RunnerBase(config, task, model, {"lck": {"test": dataset}})
        >>> runner.evaluate()["test"]["agg_metrics"]
    """

    counting: ClassVar[type[ByEpochs] | type[ByIterations]]

    def __init__(
        self,
        cfg: Config,
        task: RunnerTask,
        model: RunnerModel,
        datasets: Mapping[str, Splits],
        *,
        world: World | None = None,
    ) -> None:
        run: RunConfig = cfg.run
        run.check_start()
        if world is None:
            world = start(run.device, run.timeout_minutes)
            atexit.register(world.leave)
        check_launch()
        self.cfg, self.run, self.task, self.datasets = cfg, run, task, datasets
        self.world, self.folder = world, Path(run.output_dir).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        setup_logging(world.rank, file=self.folder / "run.log")
        self.accelerator = _accelerator(run, world, self.folder, model)
        # FSDP moves a layer at a time: all of a large model need not fit
        self.model = model if is_wanted() else model.to(world.device)
        self._sharding = Sharding()
        self.run_log = RunLog(self.folder if world.is_main else None)
        self._evaluator = Evaluator(
            task=task, model=self.model, world=world, run=run, tree=cfg.tree, folder=self.folder
        )
        self._identity: dict[str, Any] = {}  # of the training
        self._features: dict[torch.dtype | None, FeatureBuilder] = {}
        place = (world.run_id, world.size, world.device, self.folder)
        logger.info("run %s: %d process(es) on %s, files in %s", *place)

    def train(self) -> dict[str, dict[str, Any]]:
        """Train unless `run.evaluate`, then evaluate the test splits with the best weights.

        Returns:
            split -> metrics of the test splits.

        Raises:
            NothingDoneError: no record of a split could be scored.
        """
        if self.run.evaluate:
            return self.evaluate()
        self.run.check_training()
        trainer = self._trainer()
        checkpoint = self._checkpoint(trainer)
        if checkpoint is not None:
            trainer.resume(checkpoint)
        self._begin()
        self._fit(trainer)
        metrics = self._test(trainer)
        stop_trackers(self.accelerator)
        self._check_scored()
        return metrics

    def evaluate(self) -> dict[str, dict[str, Any]]:
        """Evaluate the test splits with the model as built, or with `run.resume_ckpt_path`.

        Returns:
            split -> metrics, on every rank; results are named `<split>_epochbest`.

        Raises:
            NothingDoneError: no record of a split could be scored; all else is written.
        """
        self.model.to(self.world.device)
        if self.run.resume_ckpt_path:
            path = Path(self.run.resume_ckpt_path).expanduser()
            self.model.load_state(read_state_dict(path))
        fresh = self.run.resume == "never"
        if not fresh:
            for _, result, dataset in self._results(self.run.test_splits, "test_splits", "best"):
                self.task.prepare_images(dataset, self.world)
                self._evaluator.accept(dataset, result)
        self._begin()
        metrics = self._evaluate_splits(self.run.test_splits, "best", fresh=fresh)
        stop_trackers(self.accelerator)
        self._check_scored()
        return metrics

    def close(self) -> None:
        """Leave the other processes."""
        self.world.close()

    def _check_scored(self) -> None:
        if self._evaluator.unscored:
            raise NothingDoneError("; ".join(self._evaluator.unscored))

    def _begin(self) -> None:
        """Write the run's provenance, once the folder's results are known to be its own.

        A refused run stops before this, so that finished results keep their own config.
        """
        self.world.barrier("accepted")
        if self.world.is_main:
            environment = describe_environment(
                seed=self.run.seed, run_id=self.world.run_id, world_size=self.world.size
            )
            write_provenance(self.folder, self.cfg.to_yaml(), environment)
            self.run_log.config(self.cfg.tree)
        start_trackers(
            self.accelerator,
            self.run.trackers,
            folder=self.folder,
            run_id=self.world.run_id,
            tree=self.cfg.tree,
        )

    # Training

    def _trainer(self) -> Trainer:
        run, world = self.run, self.world
        assert run.batch_size_train is not None, "checked by run.check_training()"
        named = [pair for split in run.train_splits for pair in self._split(split, "train_splits")]
        sampler = BatchSampler(
            [len(dataset) for _, dataset in named],
            batch_size=run.batch_size_train,
            rank=world.rank,
            world_size=world.size,
            seed=run.seed,
            ratios=self._ratios([name for name, _ in named]),
        )
        self._identity = self.world.on_main(
            lambda: training_identity(
                self.cfg.tree, {f"{n}.{d.split}": d.fingerprint() for n, d in named}
            ),
            "training data",
        )
        counting: Counting = type(self).counting(run, sampler)
        self._sharding = shard(self.model, world)
        features = None
        if run.cache_features:
            with self._sharding.whole():
                features = self._feature_builder(training_dtype(run, world.device))
        return Trainer(
            task=self.task,
            model=self.model,
            datasets=[dataset for _, dataset in named],
            counting=counting,
            state=TrainerState(sampler.start(), world_size=world.size),
            world=world,
            accelerator=self.accelerator,
            run=run,
            run_log=self.run_log,
            folder=self.folder,
            identity=self._identity,
            features=features,
            sharding=self._sharding,
        )

    def _ratios(self, names: list[str]) -> list[float] | None:
        ratios = self.run.train_dataset_ratios
        if ratios is None:
            return None
        for name in [*ratios, *names]:
            if name not in names or name not in ratios:
                raise ConfigError(
                    f"run.train_dataset_ratios: {name!r} is not in both the ratios and the "
                    f"training data sets{nearest(name, names)}"
                )
        return [ratios[name] for name in names]

    def _checkpoint(self, trainer: Trainer) -> Checkpoint | None:
        """Read the checkpoint to resume, if any, on every rank."""
        run, path = self.run, self.run.resume_ckpt_path
        folder = Path(path).expanduser() if path else trainer.last
        if path and (folder / "checkpoint_last").is_dir():
            folder = folder / "checkpoint_last"
        if self.world.is_main:
            recover_folder(folder)
        self.world.barrier("look for a checkpoint")
        if not path and (run.resume == "never" or not folder.exists()):
            return None
        checkpoint = read_folder(folder)
        check_identity(checkpoint, self._identity, strict=not path)
        return checkpoint

    def _fit(self, trainer: Trainer) -> None:
        done = trainer.state.epoch >= trainer.counting.epochs
        trainer.prepare(max(0, trainer.state.cursor.epoch - done))  # evaluations may need it, too
        if trainer.state.validated < trainer.state.epoch:  # killed before or in a validation
            self._validate(trainer)
        while trainer.state.epoch < trainer.counting.epochs:
            trainer.run_epoch()
            self._validate(trainer)

    def _validate(self, trainer: Trainer) -> None:
        """Evaluate the validation splits; the mean of their `agg_metrics` chooses the best."""
        state, counting = trainer.state, trainer.counting
        if self.run.valid_splits:
            with _same_random_states():
                results = self._evaluate_splits(
                    self.run.valid_splits, counting.token(state), report=False, replace_other=True
                )
            metric = sum(r["agg_metrics"] for r in results.values()) / len(results)
            if state.best is None or metric > state.best["metric"]:
                when = counting.when(state)
                state.best = {"metric": metric, "at": when, "iteration": state.iteration}
                trainer.save_best()
            for split, values in results.items():
                at = {counting.best_key: state.best["at"]}
                self.run_log.epoch(split, {**numbers(values), **at})
            best = (state.best["metric"], counting.best_key.removeprefix("best_"), state.best["at"])
            logger.info("validation %.4f; best %.4f at %s %s", metric, *best)
        trainer.note_validated()

    def _test(self, trainer: Trainer) -> dict[str, dict[str, Any]]:
        if not self.run.test_splits:
            return {}
        token = trainer.counting.token(trainer.state)
        if trainer.state.best is not None:
            token = "best"
            self.world.barrier("best checkpoint written")
            self.model.load_state(read_state_dict(trainer.best / MODEL))
        return self._evaluate_splits(self.run.test_splits, token, replace_other=True)

    # Evaluation

    def _evaluate_splits(
        self,
        splits: list[str],
        token: str,
        *,
        report: bool = True,
        fresh: bool = False,
        replace_other: bool = False,
    ) -> dict[str, dict[str, Any]]:
        """Evaluate splits; with several data sets of a split, names start with the data set's.

        Args:
            fresh: discard scores that are there.
            replace_other: discard those of other weights, which this training has left behind.
        """
        results = {}
        option = "test_splits" if report else "valid_splits"
        for key, result, dataset in self._results(splits, option, token):
            self.task.prepare_images(dataset, self.world)
            if fresh and self.world.is_main:
                shutil.rmtree(self.folder / "journal" / result, ignore_errors=True)
            with self._sharding.whole():  # ranks score units of different sizes
                results[key] = self._evaluator.run(
                    self._with_features(dataset), result, report=report, replace=replace_other
                )
            self._report(key, token, results[key])
        return results

    def _results(
        self, splits: list[str], option: str, token: str
    ) -> Iterator[tuple[str, str, RecordDataset]]:
        """Yield key, name of the result, and data set of each that is evaluated."""
        for split in splits:
            named = self._split(split, option)
            for name, dataset in named:
                key = split if len(named) == 1 else f"{name}_{split}"
                yield key, f"{key}_epoch{token}", dataset

    def _report(self, key: str, token: str, metrics: Mapping[str, Any]) -> None:
        values = numbers(metrics)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("%s, epoch %s: %s", key, token, shown)
        self.run_log.metrics("evaluate", {"split": key, "epoch": token, **metrics})
        step = int(token.rpartition("=")[2]) if token[-1].isdigit() else 0
        track(self.accelerator, values, kind=key, step=step)

    def _with_features(self, dataset: RecordDataset) -> Any:
        if not (self.run.cache_features and getattr(self.model, "vision_is_frozen", False)):
            return dataset
        dtype = evaluation_dtype(self.run, self.world.device)
        return self._feature_builder(dtype).for_evaluation(dataset)

    def _feature_builder(self, dtype: torch.dtype | None) -> FeatureBuilder:
        if dtype not in self._features:
            self._features[dtype] = FeatureBuilder(
                model=self.model, world=self.world, run=self.run, folder=self.folder, dtype=dtype
            )
        return self._features[dtype]

    def _split(self, split: str, key: str) -> list[tuple[str, RecordDataset]]:
        named = [(name, splits[split]) for name, splits in self.datasets.items() if split in splits]
        if not named:
            known = {split for splits in self.datasets.values() for split in splits}
            raise ConfigError(f"run.{key}: no data set has split {split!r}{nearest(split, known)}")
        return named


@runners.register("runner_base")
class RunnerBase(Runner):
    """`run.max_epoch` passes over the data."""

    counting = ByEpochs


@runners.register("runner_iter")
class RunnerIter(Runner):
    """`run.max_iters` batches, in inner epochs of `run.iters_per_inner_epoch`."""

    counting = ByIterations


def _accelerator(run: RunConfig, world: World, folder: Path, model: RunnerModel) -> Accelerator:
    """Set accelerate up; a model says by `uses_every_weight` that no batch leaves a head unused."""
    unused = not getattr(model, "uses_every_weight", False)
    dtype = training_dtype(run, world.device)
    AcceleratorState._reset_state(True)  # a second runner in one process may want another setting
    return Accelerator(
        cpu=world.device.type == "cpu",
        mixed_precision={None: "no", torch.float16: "fp16"}.get(dtype, "bf16"),
        log_with=list(run.trackers) or None,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )


@contextmanager
def _same_random_states() -> Iterator[None]:
    """Leave the random generators as they were, whatever an evaluation draws."""
    states = rng_state()
    try:
        yield
    finally:
        set_rng_state(states)
