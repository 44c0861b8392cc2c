"""What every verbalizer is: images with regions in, descriptors out, an image at a time or many.

A verbalizer knows neither files of records nor processes; scenes and writers are passed in.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from PIL import Image

from lavis.common.errors import ConfigError
from lavis.common.storage.content import content_digest
from lavis.verbalizers.config import WriterConfig

T = TypeVar("T")
VOCABULARIES = Path(__file__).resolve().parent.parent / "configs" / "vocabularies"

Descriptors = dict[str, Any]
"""What one stage says of one image; any of:

`concepts` (kind -> [{"text", "score"}]), `captions`, `narratives` (texts), `dynamic`
([{"question", "answer"}]), `regions` (id as text -> {"caption", "attributes"}), `region_locations`
(a detector's), and why something could not be had, for the list of rejects: the lists of `Failure`,
see `set_aside`.
"""

Failure = Literal["failed", "refused", "left"]


class ImageRegion(Protocol):
    """One region of an image; `box` is x1, y1, x2, y2 in pixels."""

    region_id: int
    box: tuple[float, float, float, float]
    name: str


class DescribedImage(Protocol):
    """One image, its regions by id, and what earlier stages said of it.

    Attributes:
        image: the name in the records, under which seeds are derived.
        record: the verbalized record so far.
    """

    image: str
    record: Mapping[str, Any]

    @property
    def regions(self) -> Sequence[ImageRegion]: ...  # in the order of their ids

    def read_image(self) -> Image.Image:
        """Return the RGB image; decoded once, whatever the number of calls."""
        ...

    def drawn(self, ids: Sequence[int], *, line_width: Any, image_size: int) -> Image.Image:
        """Return the image with the regions of `ids` drawn, coloured in that order."""
        ...

    def crop(self, region: Any, margin: float) -> Image.Image:
        """Return one of `regions` with `margin` of its edges around it."""
        ...


@dataclass(frozen=True)
class WriteRequest:
    """A text to be written.

    Attributes:
        key: stable name of the request, unique in the job.
        prompt: text for the writer; may be empty for captions of a local model.
        image: what the writer sees; None for a text-only request.
        seed: of the sampling; the same seed gives the same text, whatever else is in the batch.
        by_line: whole lines of a text that was cut off are of use.
        problem_of: returns why a text is unusable, or ''; a client may then repeat the request.
    """

    key: str
    prompt: str
    image: Image.Image | None
    seed: int
    by_line: bool = False
    problem_of: Callable[[str], str] | None = None


class WriteError(Exception):
    """One text could not be had; the others could.

    Args:
        reason: a fixed phrase, a colon, and what was met.
        kind: `failed`: nothing of use was written; `refused`: the endpoint did not take the
            request as it was asked; `left`: it may be had at the next start.
    """

    def __init__(self, reason: str, kind: Failure = "failed") -> None:
        super().__init__(reason)
        self.kind = kind


def set_aside(descriptors: Descriptors, why: WriteError | str, what: str = "") -> None:
    """Note in a scene's descriptors why something is missing.

    Args:
        why: an error, or its reason.
        what: is missing, such as `region 3`; stands behind the phrase that reasons begin with.
    """
    kind = why.kind if isinstance(why, WriteError) else "failed"
    reason = str(why)
    if what:
        reason += f" ({what})" if ":" in reason else f": {what}"
    descriptors.setdefault(kind, []).append(reason)


class TextWriter(Protocol):
    """Writes texts: a local model or a client, as the run file says."""

    def write(self, requests: Iterable[WriteRequest]) -> list[str | WriteError]:
        """Return a text, or why there is none, for each request, in order.

        Requests are drawn as they are needed, so that few images are in memory. What ends a run
        (a cap that is reached, a server that is gone, a wrong key) is raised.
        """
        ...


@dataclass(frozen=True)
class Tools:
    """What a stage is given to work with.

    Attributes:
        stage: its name in the run file.
        seed: of the run.
        device: name of this process's torch device.
        writer: makes the writer of a config.
    """

    stage: str
    seed: int
    device: str
    writer: Callable[[WriterConfig], TextWriter]

    def seed_of(self, *parts: str | int) -> int:
        """Return a seed below 2**63 that depends on the run's seed, the stage and `parts`."""
        text = "\0".join(map(str, (self.seed, self.stage, *parts)))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1


class Verbalizer(ABC):
    """One stage; built once per process, when it has something left to do."""

    config_class: ClassVar[type]
    reads_regions: ClassVar[bool] = False
    makes_regions: ClassVar[bool] = False

    def __init__(self, config: Any, tools: Tools) -> None:
        self.config, self.tools = config, tools

    @classmethod
    def identity(cls, config: Any) -> dict[str, Any]:
        """Return what the descriptors depend on beyond the config's own values; JSON-able."""
        return {}

    @classmethod
    def reads(cls, config: Any, earlier: Mapping[str, type[Verbalizer]]) -> list[str]:
        """Return the names of the earlier stages whose descriptors this one reads."""
        makers = [name for name, stage in earlier.items() if stage.makes_regions]
        return makers if cls.reads_regions else []

    def needs_image(self, scene: DescribedImage) -> bool:
        """Return whether an image's pixels will be read, so that they are decoded ahead."""
        return True

    @abstractmethod
    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        """Return the descriptors of each image, in order."""

    def request(
        self, scene: DescribedImage, *key: str | int, prompt: str, image: Image.Image | None
    ) -> WriteRequest:
        """Return a request whose name within the image, and so its seed, is `key`."""
        name = f"{self.tools.stage}:{scene.image}:{''.join(map(str, key))}"
        return WriteRequest(name, prompt, image, self.tools.seed_of(scene.image, *key))

    def write_texts(
        self,
        writer: TextWriter,
        items: Sequence[tuple[int, T]],
        request: Callable[[int, T], WriteRequest],
        descriptors: list[Descriptors],
        what: Callable[[T], str] = lambda _: "",
    ) -> Iterator[tuple[int, T, str]]:
        """Yield the texts that are written; why others are missing is noted in `descriptors`.

        Args:
            items: (place of the image, what the text is about).
            request: makes the request of an item, when its turn comes.
            what: names an item whose text is missing, see `set_aside`.
        """
        replies = writer.write(request(*item) for item in items)
        for (place, item), reply in zip(items, replies, strict=True):
            if isinstance(reply, WriteError) or not reply:
                set_aside(descriptors[place], reply or "empty text", what(item))
            else:
                yield place, item, reply


def region_entries(record: Mapping[str, Any]) -> list[Any]:
    """Return the regions of a verbalized record, whose list is a mapping where ids have gaps."""
    entries = record.get("region_locations", [])
    return list(entries.values() if isinstance(entries, Mapping) else entries)


def tag_text(tag: Any) -> str:
    """Return the word of a tag, which is a text or `{"text", "score"}`."""
    return str(tag["text"]) if isinstance(tag, Mapping) else str(tag)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield items in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def vocabulary(name: str) -> list[str]:
    """Return the phrases of a shipped list or of a file: one a line, `#` starts a comment.

    Raises:
        ConfigError: neither, or it is empty.
    """
    path = VOCABULARIES / f"{name}.txt"
    if not path.is_file():
        path = Path(os.path.expanduser(name))
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in VOCABULARIES.glob("*.txt")))
        raise ConfigError(f"vocabulary '{name}': no such file, nor one of {shipped}")
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8-sig").splitlines())
    phrases = list(dict.fromkeys(line for line in lines if line))
    if not phrases:
        raise ConfigError(f"{path}: no phrases in it")
    return phrases


def vocabulary_identity(names: Mapping[str, str]) -> dict[str, str]:
    """Return kind -> a hash of its phrases."""
    return {
        kind: hashlib.blake2b("\n".join(vocabulary(name)).encode(), digest_size=8).hexdigest()
        for kind, name in names.items()
    }


def writer_identity(config: WriterConfig) -> dict[str, Any]:
    """Return the files of a local model; a client's settings are in the config already."""
    if config.type == "local":
        return {"model": model_identity(config.model, config.revision)}
    return {}


def model_identity(name: str, revision: str | None = None) -> Any:
    """Return a model's identity: a folder's files by content, else its id."""
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        return [name, revision]
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[path.name, content_digest(path)] for path in files]
