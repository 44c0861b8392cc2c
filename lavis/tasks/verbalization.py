"""Pictures to a verbalized region mapping: stages of units, each done once by one process.

A stage's descriptors depend on its settings, on the pictures and on the stages it reads; a hash of
these names its folder, so that a change makes again what depends on it and nothing else:

    stages/<name>/<hash>/journal/           while it runs: finished chunks of pictures
    stages/<name>/<hash>/descriptors.jsonl  when it is done: a line a picture, in their order
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common import registry
from lavis.common.dist import World
from lavis.common.errors import ConfigError, RecordError
from lavis.common.journal import Journal, JournalReader
from lavis.common.logger import Progress
from lavis.common.storage import AtomicFile
from lavis.datasets.picture_sources import line_bytes, picture_lines
from lavis.datasets.pictures import PictureRoot
from lavis.datasets.records import JsonLinesFile
from lavis.datasets.scenes import Scene, open_scene
from lavis.datasets.scenes_config import ScenesConfig
from lavis.tasks.verbalization_config import VerbalizeRunConfig
from lavis.tasks.verbalization_results import tell, write_results
from lavis.tasks.verbalization_writers import build_writer
from lavis.verbalizers.base import RetryLater, Tools

logger = logging.getLogger(__name__)

VERSION = 1  # of what stages write
PICTURES = "pictures"  # the stage that opens every picture and checks its boxes
PICTURES_CHUNK = 256
# Settings that change how a stage is computed and not what it says.
_NOT_IDENTITY = {"batch_size"}
_CLIENT_IDENTITY = (
    *("backend", "model", "base_url", "revision", "gguf_file", "template", "dtype"),
    *("script", "options", "send_seed"),
)

Load = Callable[[Sequence[int]], Any]
Describe = Callable[[Any], list[dict[str, Any]]]


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: in the run file.
        reads: names of the stages whose descriptors it sees.
        fingerprint: everything its descriptors depend on.
        folder: of its journal and descriptors.
        chunk: pictures of one unit.
    """

    name: str
    reads: tuple[str, ...]
    fingerprint: dict[str, Any]
    folder: Path
    chunk: int
    cls: Any = None
    config: Any = None

    @property
    def descriptors(self) -> Path:
        """The file with a line a picture, there when the stage is done."""
        return self.folder / "descriptors.jsonl"


class Verbalization:
    """A run; every process calls it with the same settings."""

    def __init__(
        self,
        pictures: ScenesConfig,
        stages: Mapping[str, Any],
        run: VerbalizeRunConfig,
        world: World,
    ) -> None:
        self.pictures, self.run_config, self.world = pictures, run, world
        self.folder = Path(run.output_dir)
        self.root = PictureRoot(pictures.root, follow_symlinks=pictures.follow_symlinks)
        self.source, digest = self._open_source()
        self.stages = self._plan(stages, digest)
        self._files: dict[str, JsonLinesFile] = {}

    def run(self) -> dict[str, Any] | None:
        """Do what is left; returns the summary, or None where texts have to be asked for again."""
        for stage in self.stages.values():
            if not self._run(stage):
                return None
        summary = None
        if self.world.is_main:
            names = list(self.stages)
            files = [self._descriptors(name) for name in names]
            summary = write_results(self.folder, names, files)
        return self.world.broadcast(summary, "summary")

    def left(self) -> dict[str, tuple[int, int]]:
        """Return stage name -> pictures in units that are not done, and all pictures."""
        total = len(self.source)
        found = {}
        for name, stage in self.stages.items():
            left = 0
            if not stage.descriptors.exists():
                journal = Journal(stage.folder / "journal", stage.fingerprint)
                starts = range(0, total, stage.chunk)
                left = sum(
                    min(stage.chunk, total - start)
                    for unit, start in enumerate(starts)
                    if not journal.done(unit)
                )
            found[name] = (left, total)
        return found

    def _open_source(self) -> tuple[JsonLinesFile, str]:
        """Write the pictures and their boxes as lines of one form, under a name of their hash."""
        named: tuple[str, str] | None = None
        if self.world.is_main:
            digest = hashlib.blake2b(digest_size=16)
            folder = self.folder / "stages" / PICTURES
            writer = AtomicFile(folder / "source.jsonl")
            with writer as file:
                for line in picture_lines(self.pictures):
                    data = line_bytes(line)
                    digest.update(data)
                    file.write(data)
                writer.path = folder / f"source-{digest.hexdigest()[:12]}.jsonl"
            named = (str(writer.path), digest.hexdigest())
        path_text, content = self.world.broadcast(named, "pictures listed")
        return JsonLinesFile(path_text), content

    def _plan(self, configs: Mapping[str, Any], digest: str) -> dict[str, Stage]:
        options = dataclasses.asdict(self.pictures)
        kept = ("max_regions", "order", "min_edge", "check", "max_pixels", "follow_symlinks")
        identity = {"source": digest, **{key: options[key] for key in kept}}
        stages = {PICTURES: self._stage(PICTURES, (), identity, PICTURES_CHUNK)}
        classes: dict[str, Any] = {}
        for name, config in configs.items():
            cls = registry.verbalizers.get(config.type)
            try:
                reads = (PICTURES, *cls.reads(config, classes))
                identity = {
                    "config": _identity(dataclasses.asdict(config)),
                    "files": cls.identity(config),
                    "seed": self.run_config.seed,
                    "reads": {other: stages[other].folder.name for other in reads},
                }
            except ConfigError as error:
                raise ConfigError(f"stages.{name}.{error}") from None
            # Every process must see the same files under the same names.
            identity = self.world.broadcast(identity, f"{name}: identity")
            stages[name] = self._stage(name, reads, identity, config.chunk, cls, config)
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

    def _descriptors(self, name: str) -> JsonLinesFile:
        if name not in self._files:
            self._files[name] = JsonLinesFile(str(self.stages[name].descriptors))
        return self._files[name]

    def _run(self, stage: Stage) -> bool:
        """Do one stage; returns whether it is done."""
        world = self.world
        world.barrier(f"{stage.name}: begin")
        if stage.descriptors.exists():
            logger.info("%s: done before, %s", stage.name, stage.folder.name)
            return True
        journal = Journal(stage.folder / "journal", stage.fingerprint, world.rank)
        units = range(-(-len(self.source) // stage.chunk))
        left = [unit for unit in units if not journal.done(unit)]
        world.barrier(f"{stage.name}: start")  # nobody writes before everybody has read
        mine = left[world.rank :: world.size]
        reason = ""
        with ExitStack() as stack:
            stack.callback(journal.close)
            if mine:
                load, describe = self._work(stage, stack)
                reason = self._do(stage, journal, mine, load, describe)
        reasons = world.gather(reason, f"{stage.name}: every unit done")
        if any(reasons):
            told = next(reason for reason in reasons if reason)
            logger.error("%s: unfinished, start the command again later: %s", stage.name, told)
            return False
        if world.is_main:
            self._commit(stage)
        world.barrier(f"{stage.name}: written")
        return True

    def _do(
        self, stage: Stage, journal: Journal, units: list[int], load: Load, describe: Describe
    ) -> str:
        """Do units and journal each; returns why some are left, or ''."""
        world, total = self.world, len(self.source)
        done = max(0, total - world.size * len(units) * stage.chunk)
        progress = Progress(total, stage.name, unit="pictures", done=done, shown=world.is_main)
        reason = ""
        for unit, rows, loaded in self._ahead(stage, units, load):
            try:
                payloads = describe(loaded)
            except RetryLater as later:
                reason = str(later)
                if later.stop:
                    break
                continue
            journal.append(unit, list(zip(rows, payloads, strict=True)))
            world.beat(f"{stage.name}: unit {unit}")
            progress.add(min(len(rows) * world.size, total - progress.done))
        progress.close()
        return reason

    def _ahead(
        self, stage: Stage, units: Sequence[int], load: Load
    ) -> Iterator[tuple[int, Sequence[int], Any]]:
        """Yield units with what they need, the next ones loaded by threads meanwhile."""
        total, waiting = len(self.source), deque[tuple[int, Sequence[int], Future[Any]]]()
        workers = self.run_config.num_workers
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for unit in units:
                rows = range(unit * stage.chunk, min(total, (unit + 1) * stage.chunk))
                waiting.append((unit, rows, pool.submit(load, rows)))
                if len(waiting) > workers:
                    first, its_rows, future = waiting.popleft()
                    yield first, its_rows, future.result()
            while waiting:
                first, its_rows, future = waiting.popleft()
                yield first, its_rows, future.result()

    def _work(self, stage: Stage, stack: ExitStack) -> tuple[Load, Describe]:
        """Return how the units of a stage are loaded, and how they are done."""
        if stage.cls is None:
            return (lambda rows: [self._opened(row) for row in rows]), list
        self.files_of(stage)  # opened before threads ask for them
        verbalizer = stage.cls(stage.config, self._tools(stage, stack))
        return (lambda rows: [self._scene(stage, verbalizer, row) for row in rows]), (
            lambda loaded: _describe(verbalizer, loaded)
        )

    def files_of(self, stage: Stage) -> list[JsonLinesFile]:
        """Return the descriptors that a stage reads, the pictures' first."""
        return [self._descriptors(name) for name in stage.reads]

    def _tools(self, stage: Stage, stack: ExitStack) -> Tools:
        world = self.world
        clients = iter(range(1000))

        def writer(config: Any) -> Any:
            place = self.folder / "clients" / stage.name / f"rank{world.rank}-{next(clients)}"
            device = str(world.device)
            made = build_writer(config, place, device=device, world_size=world.size)
            if hasattr(made, "close"):
                stack.callback(made.close)
            return made

        return Tools(stage.name, self.run_config.seed, str(world.device), writer)

    def _opened(self, row: int) -> dict[str, Any]:
        source = self.source.read(row)
        name = source.get("image")
        try:
            record, bad = open_scene(source, self.root, self.pictures)
        except RecordError as error:
            return {"image": name, "reject": error.reason}
        return {"image": name, "record": record, **({"failed": bad} if bad else {})}

    def _scene(self, stage: Stage, verbalizer: Any, row: int) -> Scene | dict[str, Any]:
        """Return a row's scene with its picture decoded, or the row's payload where it has none."""
        first, *others = (file.read(row) for file in self.files_of(stage))
        if "record" not in first:
            return {"image": first["image"]}
        record = first["record"]
        for descriptors in others:
            tell(record, descriptors)
        scene = Scene(record, self.root, self.pictures.max_pixels)
        try:
            if verbalizer.needs_picture(scene):
                scene.picture()
        except RecordError as error:
            return {"image": scene.image, "reject": error.reason}
        return scene

    def _commit(self, stage: Stage) -> None:
        """Write a finished stage's descriptors in the order of the pictures; drop its journal."""
        journal = stage.folder / "journal"
        with JournalReader(journal, stage.fingerprint) as reader:
            assert len(reader) == len(self.source)
            with AtomicFile(stage.descriptors) as file:
                for _, raw in reader.iterate_raw():
                    file.write(raw + b"\n")
        shutil.rmtree(journal)


def _describe(verbalizer: Any, loaded: Sequence[Any]) -> list[dict[str, Any]]:
    scenes = [scene for scene in loaded if isinstance(scene, Scene)]
    found = iter(verbalizer.describe(scenes) if scenes else [])
    return [
        {"image": each.image, **next(found)} if isinstance(each, Scene) else each for each in loaded
    ]


def _identity(node: Any) -> Any:
    """Return settings without those that do not change what is said."""
    if isinstance(node, dict):
        kept = {key: _identity(value) for key, value in node.items() if key not in _NOT_IDENTITY}
        if isinstance(kept.get("client"), dict):
            kept["client"] = {k: v for k, v in kept["client"].items() if k in _CLIENT_IDENTITY}
        return kept
    return [_identity(item) for item in node] if isinstance(node, list) else node
