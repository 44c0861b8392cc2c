"""Images to a verbalized region mapping: stages of units, each done once by one process.

A stage's descriptors depend on its settings, on the images and on the stages it reads; a hash of
these names its folder, so that a change makes again what depends on it and nothing else:

    stages/<name>/<hash>/journal/           finished chunks of images
    stages/<name>/<hash>/descriptors.jsonl  when it is done: a line an image, in their order

A chunk notes what its images were, and what the stages that it reads said of them. Where one of
these is another at the next start, the chunk is made again. So is a chunk with texts that were left
or refused; replies that came are stored by the client, so that those alone are asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lavis.common import registry
from lavis.common.dist import World
from lavis.common.errors import ConfigError, RecordError, RunError
from lavis.common.logger import Progress
from lavis.common.storage.atomic import AtomicFile
from lavis.common.storage.inputs import Input, Watch
from lavis.common.storage.journal import Journal, JournalReader
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.scene_sources import image_lines, line_bytes
from lavis.datasets.lck.scenes import Scene, ScenesConfig, open_scene
from lavis.llm.config import read_llm
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import Ledger, open_ledger
from lavis.tasks.knowledge.reasons import how_to_go_on
from lavis.tasks.knowledge.verbalization_config import VerbalizeRunConfig
from lavis.tasks.knowledge.verbalization_plan import Plan
from lavis.tasks.knowledge.verbalization_report import VerbalizationReport
from lavis.tasks.knowledge.verbalization_results import (
    says_something,
    tell,
    write_results,
    write_stopped,
)
from lavis.tasks.knowledge.verbalization_stages import (
    Chunk,
    Left,
    Note,
    Stage,
    Work,
    endpoint_digest,
    rejected,
    stage_identity,
)
from lavis.tasks.knowledge.verbalization_writers import ChatWriter, build_writer, clients_of
from lavis.verbalizers.base import Tools

logger = logging.getLogger(__name__)

VERSION = 3  # of what stages write
IMAGES = "pictures"  # the stage that opens every image and checks its boxes
IMAGES_CHUNK = 256


class Verbalization:
    """A run; every process calls it with the same settings.

    Args:
        pictures: which, and where.
        stages: settings by name, in their order.
        run: where results go.
        world: of the processes.
        retry_rejects: ask anew for texts that clients could not be had from.
    """

    def __init__(
        self,
        images: ScenesConfig,
        stages: Mapping[str, Any],
        run: VerbalizeRunConfig,
        world: World,
        *,
        retry_rejects: bool = False,
    ) -> None:
        self.pictures, self.run_config, self.world = images, run, world
        self.folder = Path(run.output_dir)
        self.root = ImageRoot(images.root, follow_symlinks=images.follow_symlinks)
        self._names = ImageRoot(images.root, must_exist=False)
        self._ledger: Ledger | None = None
        self.source, digest = self._open_source()
        self.stages = self._plan(stages, digest)
        self.plan = Plan(
            self.stages, self.source, self.root.root, beat=world.beat, retry_rejects=retry_rejects
        )

    def accept(self) -> None:
        """Refuse what `run` would refuse, before it writes anything; every process calls this.

        Raises:
            ConfigError: what is there was made of other images in another folder.
        """
        self.world.on_main(self.plan.accept, "whose descriptors")

    def run(self) -> dict[str, Any]:
        """Do what is left, write the results, and return their summary.

        Raises:
            ConfigError: no text can be had until the run file or a key is mended.
            RunError: likewise, until a cap, an account or a server is; or nothing was made.
        """
        try:
            for stage in self.stages.values():
                stop = self._run(stage)
                if stop is not None:
                    write = functools.partial(self._write_stopped, stage, stop)
                    self.world.on_main(write, f"{stage.name}: stopped")
                    raise stop
        finally:
            if self._ledger is not None:
                self._ledger.close()
        names = list(self.stages)

        def results() -> dict[str, Any]:
            report = VerbalizationReport(self.root, self.run_config.report_examples)
            files = [self.plan.descriptors(name) for name in names]
            return write_results(self.folder, names, files, report)

        return self.world.on_main(results, "results written")

    def _open_source(self) -> tuple[JsonLinesFile, str]:
        """Write the images and their boxes as lines of one form, under a name of their hash."""
        named: tuple[str, str] | None = None
        if self.world.is_main:
            digest = hashlib.blake2b(digest_size=16)
            folder = self.folder / "stages" / IMAGES
            writer = AtomicFile(folder / "source.jsonl")
            with writer as file:
                for line in image_lines(self.pictures):
                    data = line_bytes(line)
                    digest.update(data)
                    file.write(data)
                writer.path = folder / f"source-{digest.hexdigest()[:12]}.jsonl"
            named = (str(writer.path), digest.hexdigest())
        path_text, content = self.world.broadcast(named, "images listed")
        return JsonLinesFile(path_text), content

    def _plan(self, configs: Mapping[str, Any], digest: str) -> dict[str, Stage]:
        options = dataclasses.asdict(self.pictures)
        kept = ("max_regions", "order", "min_edge", "check", "max_pixels", "follow_symlinks")
        identity = {"source": digest, **{key: options[key] for key in kept}}
        stages = {IMAGES: self._stage(IMAGES, (), identity, IMAGES_CHUNK)}
        classes: dict[str, Any] = {}
        for name, config in configs.items():
            cls = registry.verbalizers.get(config.type)
            try:
                reads = (IMAGES, *cls.reads(config, classes))
                identity = {
                    "config": stage_identity(dataclasses.asdict(config)),
                    "files": cls.identity(config),
                    "seed": self.run_config.seed,
                    "reads": {other: stages[other].folder.name for other in reads},
                }
            except ConfigError as error:
                raise ConfigError(f"stages.{name}.{error}") from None
            # Every process must see the same files under the same names.
            identity = self.world.broadcast(identity, f"{name}: identity")
            stage = self._stage(name, reads, identity, config.chunk, cls, config)
            endpoint = endpoint_digest(dataclasses.asdict(config))
            stages[name] = dataclasses.replace(stage, endpoint=endpoint)
            classes[name] = cls
        return stages

    def _stage(
        self,
        name: str,
        reads: tuple[str, ...],
        identity: dict[str, Any],
        chunk: int,
        cls: Any = None,
        config: Any = None,
    ) -> Stage:
        fingerprint = {"stage": name, "version": VERSION, "chunk": chunk, **identity}
        text = json.dumps(fingerprint, sort_keys=True).encode()
        folder = hashlib.blake2b(text, digest_size=6).hexdigest()
        place = self.folder / "stages" / name / folder
        return Stage(name, reads, fingerprint, place, chunk, cls, config)

    def _run(self, stage: Stage) -> Exception | None:
        """Do one stage; returns what ended it early."""
        world = self.world
        left = world.on_main(lambda: self.plan.left(stage), f"{stage.name}: what is left")
        if left is None:
            logger.info("%s: done before, %s", stage.name, stage.folder.name)
            return None
        journal = Journal(
            stage.folder / "journal",
            stage.fingerprint,
            world.rank,
            start=left.start,
            places=[os.path.realpath(self.root.root)],
        )
        mine = left.units[world.rank :: world.size]
        stop = None
        with ExitStack() as stack:
            stack.callback(journal.close)
            if mine:
                stop = self._do(stage, journal, dataclasses.replace(left, units=mine), stack)
        stops = world.gather(stop, f"{stage.name}: every unit done")
        if any(stops):
            return next(stop for stop in stops if stop)
        world.on_main(lambda: self._commit(stage), f"{stage.name}: written")
        return None

    def _do(self, stage: Stage, journal: Journal, left: Left, stack: ExitStack) -> Exception | None:
        """Do units and journal each; returns what ended that early."""
        world, total = self.world, len(self.source)
        work = self._work(stage, stack)
        done = max(0, total - world.size * len(left.units) * stage.chunk)
        progress = Progress(total, stage.name, unit="pictures", done=done, shown=world.is_main)
        stop: Exception | None = None
        refused: list[tuple[int, list[tuple[int, Any]], list[Any]]] = []  # since the last text
        for unit, rows, chunk in self._ahead(stage, left.units, work.load):
            tries = left.tries.get(unit, 0)
            for writer in work.writers:
                writer.tries = tries
            try:
                payloads = work.describe(chunk.loaded)
            except (BudgetReached, EndpointStopped, ConfigError) as error:
                stop = _named(stage, error)
                if isinstance(error, EndpointStopped):  # for once, refusals tell of the server
                    for suspect in refused:
                        journal.append(*suspect, again=True)
                break
            note, again = self._note(stage, unit, chunk, payloads)
            inputs = [*chunk.notes, dataclasses.replace(note, tries=tries).line()]
            lines = list(zip(rows, payloads, strict=True))
            journal.append(unit, lines, inputs, again)
            if any(map(says_something, payloads)):
                refused.clear()
            elif note.endpoint:
                refused.append((unit, lines, inputs))
            world.beat(f"{stage.name}: unit {unit}")
            progress.add(min(len(rows) * world.size, total - progress.done))
        progress.close()
        return stop

    def _note(
        self, stage: Stage, unit: int, chunk: Chunk, payloads: Sequence[dict[str, Any]]
    ) -> tuple[Note, bool]:
        """Return what a unit depends on, and whether the next start must do it again."""
        pairs = zip(chunk.loaded, payloads, strict=True)
        told = [payload for scene, payload in pairs if isinstance(scene, Scene)]
        refused = any("refused" in payload for payload in told)
        note = Note(
            read=self.plan.read(stage, unit),
            has_rejects=bool(stage.endpoint) and (refused or any("failed" in p for p in told)),
            endpoint=stage.endpoint if refused else "",
        )
        return note, chunk.again or any("left" in payload for payload in told)

    def _ahead(
        self, stage: Stage, units: Sequence[int], load: Callable[[Sequence[int]], Chunk]
    ) -> Iterator[tuple[int, Sequence[int], Chunk]]:
        """Yield units with what they need, the next ones loaded by threads meanwhile."""
        waiting = deque[tuple[int, Sequence[int], Future[Chunk]]]()
        workers = self.run_config.num_workers
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for unit in units:
                rows = self.plan.rows(stage, unit)
                waiting.append((unit, rows, pool.submit(load, rows)))
                if len(waiting) > workers:
                    first, its_rows, future = waiting.popleft()
                    yield first, its_rows, future.result()
            while waiting:
                first, its_rows, future = waiting.popleft()
                yield first, its_rows, future.result()

    def _work(self, stage: Stage, stack: ExitStack) -> Work:
        """Return how the units of a stage are loaded, and how they are done."""
        if stage.cls is None:
            return Work(lambda rows: self._chunk(rows, self._opened), list, [])
        self.plan.files_of(stage)  # opened before threads ask for them
        writers: list[Any] = []
        verbalizer = stage.cls(stage.config, self._tools(stage, stack, writers))

        def scene(row: int) -> Scene | dict[str, Any]:
            return self._scene(stage, verbalizer, row)

        return Work(
            lambda rows: self._chunk(rows, scene),
            lambda loaded: _describe(verbalizer, loaded),
            writers,
        )

    def _chunk(self, rows: Sequence[int], load: Callable[[int], Any]) -> Chunk:
        """Load rows, with notes on their images."""
        watch = Watch([self.root.root])
        loaded, again = [], False
        for row in rows:
            with contextlib.suppress(RecordError):  # a name that can be no image's
                path = self._names.find(self.source.read(row).get("image")).path
                watch.add(Input(os.path.abspath(path)))
            found = load(row)
            again = again or (isinstance(found, dict) and bool(found.get("again")))
            loaded.append(found)
        return Chunk(loaded, watch.notes(), again)

    def _tools(self, stage: Stage, stack: ExitStack, writers: list[Any]) -> Tools:
        world = self.world
        clients = iter(range(1000))

        def writer(config: Any) -> Any:
            place = self.folder / "clients" / stage.name / f"rank{world.rank}-{next(clients)}"
            ledger = self._open_ledger() if config.type == "client" else None
            device, size = str(world.device), world.size
            made = build_writer(config, place, device=device, world_size=size, ledger=ledger)
            if hasattr(made, "close"):
                stack.callback(made.close)
            if isinstance(made, ChatWriter):
                writers.append(made)
            return made

        return Tools(stage.name, self.run_config.seed, str(world.device), writer)

    def _open_ledger(self) -> Ledger:
        """Return the one ledger of all stages, held by the caps of each from the first request."""
        if self._ledger is None:
            self._ledger = open_ledger(self.folder, rank=self.world.rank)
            for stage in self.stages.values():
                for writer in clients_of(stage.config):
                    self._ledger.limit(read_llm(writer.client).caps)
        return self._ledger

    def _opened(self, row: int) -> dict[str, Any]:
        source = self.source.read(row)
        name = source.get("image")
        try:
            record, bad = open_scene(source, self.root, self.pictures)
        except RecordError as error:
            return rejected(name, error)
        return {"image": name, "record": record, **({"failed": bad} if bad else {})}

    def _scene(self, stage: Stage, verbalizer: Any, row: int) -> Scene | dict[str, Any]:
        """Return a row's scene with its image decoded, or the row's payload where it has none."""
        first, *others = (file.read(row) for file in self.plan.files_of(stage))
        if "record" not in first:
            return {"image": first["image"]}
        waits = [n for n, said in zip(stage.reads[1:], others, strict=True) if said.get("left")]
        if waits:  # what would be asked now is not what will be asked once they are there
            return {"image": first["image"], "left": [f"waits for: {', '.join(waits)}"]}
        record = first["record"]
        for descriptors in others:
            tell(record, descriptors)
        scene = Scene(record, self.root, self.pictures.max_pixels)
        try:
            if verbalizer.needs_image(scene):
                scene.read_image()
        except RecordError as error:
            return rejected(scene.image, error)
        return scene

    def _write_stopped(self, stage: Stage, stop: Exception) -> None:
        left = {stage.name: self.plan.undone(stage)}
        write_stopped(self.folder, len(self.source), str(stop), left)

    def _commit(self, stage: Stage) -> None:
        """Write a finished stage's descriptors in the order of the images."""
        journal = stage.folder / "journal"
        with JournalReader(journal, stage.fingerprint) as reader:
            assert len(reader) == len(self.source)
            with AtomicFile(stage.descriptors) as file:
                for _, raw in reader.iterate_raw():
                    file.write(raw + b"\n")


def _describe(verbalizer: Any, loaded: Sequence[Any]) -> list[dict[str, Any]]:
    scenes = [scene for scene in loaded if isinstance(scene, Scene)]
    found = iter(verbalizer.describe(scenes) if scenes else [])
    return [
        {"image": each.image, **next(found)} if isinstance(each, Scene) else each for each in loaded
    ]


def _named(stage: Stage, error: Exception) -> Exception:
    """Return the error that ends a run, with the stage it came up in."""
    told = f"stages.{stage.name}: {error}"
    if isinstance(error, ConfigError):
        return ConfigError(told)
    return RunError(f"not complete: {told}{how_to_go_on(error)}")
