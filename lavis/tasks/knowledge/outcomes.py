"""The outcome of each unit of a generation, kept over starts: records, or why there are none.

Units with records stand in `journal`, whose fingerprint holds the model: records of two models are
never mixed. All others stand in `journal/without_records`, each with a digest of what its fault
depends on: if that differs at the next start, the unit is requested again, so that it is enough to
correct the run file. Four kinds:

    data      there is nothing to ask about; depends on data, prompts and settings
    reply     nothing in the reply is of use; also depends on the model
    endpoint  the server refused the request; also depends on how requests are sent
    left      given up for now; always requested again

A unit whose image is not what it was when the unit was made is made again, and until then is left.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lavis.common.errors import ConfigError
from lavis.common.storage.cache import make_key
from lavis.common.storage.inputs import changed_units
from lavis.common.storage.journal import Journal, JournalReader, finished
from lavis.common.storage.segments import open_segments
from lavis.common.units import UnitResult, changed_inputs
from lavis.llm.config import LlmConfig

logger = logging.getLogger(__name__)

Kind = Literal["data", "reply", "endpoint", "left"]
VERSION = 1  # of what is written for a unit without records
_WITHOUT = {"generate_qar": "units without records"}


class Outcome(NamedTuple):
    """Outcome of a unit: `kind` is `""` if it has records."""

    unit: int
    kind: Kind | Literal[""]
    payload: dict[str, Any]


def without_records(unit: int, kind: Kind, payload: Mapping[str, Any]) -> UnitResult:
    """Return the result of a unit that has no records; `rejects` of the payload say why."""
    return UnitResult(unit, [(unit, {**payload, "kind": kind})])


class Outcomes:
    """The journals of a generation behind one `append`; a context manager to write, then `read`.

    Args:
        job: everything that a unit depends on beside the model.
        llm: settings of the model.
        retry_rejects: also repeat requests that were refused or got a useless reply.
        places: folders of the images that units see.
    """

    def __init__(
        self,
        folder: Path,
        job: Mapping[str, Any],
        llm: LlmConfig,
        *,
        retry_rejects: bool = False,
        places: Sequence[str] = (),
    ) -> None:
        self._folder = folder / "journal"
        self._job, self._retry, self._places = dict(job), retry_rejects, list(places)
        self._fingerprint = {**job, "llm": llm.identity}
        request = {**self._fingerprint, "endpoint": llm.endpoint_identity}
        self._digests = {
            "data": make_key("data", VERSION, **self._job),
            "reply": make_key("reply", VERSION, **self._fingerprint),
            "endpoint": make_key("endpoint", VERSION, **request),
            "left": make_key("reply", VERSION, **self._fingerprint),
        }
        self._tries: dict[int, int] = {}
        self._done: set[int] = set()
        self._journals: list[Journal] = []
        # units of each journal whose images are others now, until they are made again
        self._changed: tuple[set[int], set[int]] | None = None

    def check(self) -> None:
        """Raise `ConfigError`, before any writing, that names how existing records differ.

        Or that images lie in another folder, and are others there.
        """
        open_segments(self._folder, self._job, partly=True)
        try:
            open_segments(self._folder, self._fingerprint)
        except ConfigError as error:
            server = self._server_of_records()
            hint = f"; where only its address moved, set llm.server='{server}'" if server else ""
            raise ConfigError(f"{error}{hint}") from None
        self._changed = self._compare()

    def __enter__(self) -> Outcomes:
        if self._changed is None:
            self._changed = self._compare()
        for unit, kind, payload in self._without():
            self._tries[unit] = payload.get("tries", 0)
            if kind == "data" or (kind != "left" and not self._retry):
                self._done.add(unit)
            elif kind == "reply":
                self._tries[unit] += 1  # its reply is stored: only another seed brings another
        places = [os.path.realpath(place) for place in self._places]
        self._journals = [
            Journal(self._folder, self._fingerprint, places=places),
            Journal(self._folder / "without_records", _WITHOUT, places=places),
        ]
        self._done |= set(self._journals[0].done_units().tolist()) - self._changed[0]
        return self

    def __exit__(self, *error: object) -> None:
        for journal in self._journals:
            journal.close()

    @property
    def done_before(self) -> int:
        """Return how many units need no further request."""
        return len(self._done)

    def done(self, unit: int) -> bool:
        """Return whether a unit needs no further request."""
        return unit in self._done

    def tries(self, unit: int) -> int:
        """Return how often a unit got a useless reply and was requested again."""
        return self._tries.get(unit, 0)

    def append(
        self,
        unit: int,
        rows: Sequence[tuple[int, Mapping[str, Any]]],
        inputs: Sequence[Any] = (),
        again: bool = False,
    ) -> None:
        """Write the outcome of a unit: its one row has a `kind` if it has no records."""
        ((_, payload),) = rows
        assert self._changed is not None
        if "kind" not in payload:
            self._journals[0].append(unit, rows, inputs)
            self._changed[0].discard(unit)
            return
        row = {**payload, "depends_on": self._digests[payload["kind"]]}
        if self.tries(unit):
            row["tries"] = self.tries(unit)
        self._journals[1].append(unit, [(unit, row)], inputs)
        self._changed[1].discard(unit)

    def read(self) -> Iterator[Outcome]:
        """Yield the outcome of each unit, in their order."""
        changed = self._changed[0] if self._changed else ()
        with JournalReader(self._folder, self._fingerprint) as reader:
            records = (
                Outcome(unit, "", payload)
                for unit, payload in reader.iterate()
                if unit not in changed
            )
            last = -1
            for outcome in heapq.merge(records, self._without(), key=lambda outcome: outcome.unit):
                if outcome.unit != last:  # of two, that with records comes first
                    yield outcome
                last = outcome.unit

    def _without(self) -> Iterator[Outcome]:
        """Yield units without records whose reason still holds."""
        changed = self._changed[1] if self._changed else ()
        with JournalReader(self._folder / "without_records", _WITHOUT) as reader:
            for unit, payload in reader.iterate():
                kind = payload.pop("kind")
                if unit in changed:
                    continue
                if payload.pop("depends_on") == self._digests[kind]:
                    yield Outcome(unit, kind, payload)

    def _compare(self) -> tuple[set[int], set[int]]:
        """Return the units of both journals whose images are not what they were."""
        before = finished(self._folder, self._fingerprint)
        records = changed_inputs(
            before, self._places, folder=self._folder, what="records", beat=lambda: None
        )
        without = finished(self._folder / "without_records", _WITHOUT)
        # in another folder, too: that it was the wrong one may be why there are no records
        others = changed_units(without.noted(), self._places)
        changed = {one.unit for one in records}, {one.unit for one in others}
        if any(changed):
            count = len(changed[0] | changed[1])
            logger.warning("%d requests are made again: their images changed", count)
        return changed

    def _server_of_records(self) -> str:
        """Return the server of the existing records, if nothing else differs."""
        ours = dict(self._fingerprint["llm"])
        for segment in open_segments(self._folder, self._job, partly=True):
            theirs = dict(segment.fingerprint["llm"])
            if theirs.get("server") and {**theirs, "server": ours.get("server")} == ours:
                return str(theirs["server"])
        return ""
