"""Stages of a verbalization and the chunks they are made in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError

# Settings that change how a stage is computed and not what it says.
_NOT_IDENTITY = {"batch_size"}
_CLIENT_IDENTITY = (
    *("backend", "model", "base_url", "revision", "gguf_file", "template", "dtype"),
    *("script", "options", "send_seed"),
)


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


@dataclass(frozen=True)
class Chunk:
    """Pictures of one unit.

    Attributes:
        loaded: a scene, or the line of a picture without one.
        notes: of `lavis.common.inputs`, on the pictures' files.
        again: a picture could not be read for a reason that may pass.
    """

    loaded: list[Any]
    notes: list[Any]
    again: bool


def rejected(image: Any, error: RecordError) -> dict[str, Any]:
    """Return the line of a picture that cannot be used; `again` where it may be later."""
    again = {"again": True} if error.may_pass else {}
    return {"image": image, "reject": error.reason, **again}


def stage_identity(node: Any) -> Any:
    """Return settings without those that do not change what is said."""
    if isinstance(node, dict):
        kept = {
            key: stage_identity(value) for key, value in node.items() if key not in _NOT_IDENTITY
        }
        if isinstance(kept.get("client"), dict):
            kept["client"] = {k: v for k, v in kept["client"].items() if k in _CLIENT_IDENTITY}
        return kept
    return [stage_identity(item) for item in node] if isinstance(node, list) else node
