"""The state of a unit's input files when it was made, and whether it is the same now.

A corpus has millions of images, too many for one identity, and one of them may change while the
others stay. So each unit notes its own files:

    [place, name, state, digest]            a whole file, `name` relative to a folder of the job
    [place, name, state, digest, parts]     parts [[offset, size], ...] of a file, such as a tar

`state` is [size, mtime_ns, ctime_ns], null for a file that was missing, false for one that could
not be read or changed meanwhile. Equal states are equal files: the status time cannot be set back.
Where states differ, as after a copy, the digest tells whether the content does.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Literal, NamedTuple

from lavis.common.storage.content import file_state

_CHUNK = 1 << 20  # bytes read at a time
_THREADS = 8  # that ask a file system over a network side by side
_UNITS = 64  # compared by a thread at a time
_MISSING = (FileNotFoundError, NotADirectoryError)

Note = list[Any]
State = list[int] | None | Literal[False]


class Input(NamedTuple):
    """A file that a unit is made from, or was looked for; `parts` (offset, size) if not whole."""

    path: str
    parts: tuple[tuple[int, int], ...] = ()


class Changed(NamedTuple):
    """A unit with a changed input: `name` of the first; `moved` if read from another folder."""

    unit: int
    name: str
    moved: bool


def read_state(path: str) -> State:
    """Return a file's state, None if it is missing, False if the system reports none."""
    try:
        return list(file_state(path))
    except _MISSING:
        return None
    except (OSError, ValueError):
        return False


class Watch:
    """Notes on the inputs of one unit, each of which is added before it is read.

    An input's folder follows from its kind, not from its path: a folder of records may be the root
    of the images too, and each may be another one in the next start.

    Args:
        places: folders of the job: that of records, then the roots of images.
        with_digests: read files once more for their digests, while the system still holds them.
    """

    def __init__(self, places: Sequence[str], *, with_digests: bool = True) -> None:
        self._places = [os.path.abspath(place) for place in places]
        self._with_digests = with_digests
        self._before: dict[Input, State] = {}
        self._records: set[Input] = set()

    def add(self, one: Input) -> None:
        """Note the state of a file of records, before it is read."""
        if one not in self._before:
            self._before[one] = read_state(one.path)
            self._records.add(one)

    def add_known(self, path: str, state: State) -> None:
        """Note the state that an image had when it was looked up, before it is read."""
        self._before.setdefault(Input(os.path.abspath(path)), state)

    def add_refused(self, path: str) -> None:
        """Note an image that was missing or refused for its content.

        If it is there by now, it came since; then the next start looks again.
        """
        state = read_state(path)
        self._before.setdefault(Input(os.path.abspath(path)), None if state is None else False)

    def notes(self) -> list[Note]:
        """Return the notes, after everything was read."""
        return [self._note(one, state) for one, state in self._before.items()]

    def _note(self, one: Input, state: State) -> Note:
        digest = None
        if state and self._with_digests:
            digest = input_digest(one)
        if state is not False and read_state(one.path) != state:
            state = False
        first = slice(0, 1) if one in self._records else slice(1, None)
        note = [*_placed(one.path, self._places, first), state, digest]
        return [*note, [list(part) for part in one.parts]] if one.parts else note


def _placed(path: str, places: Sequence[str], first: slice) -> tuple[int, str]:
    """Return which folder holds a path, and the rest; -1 and all for none.

    Args:
        first: the places that come before the others; among equals the innermost is taken.
    """
    path = os.path.abspath(path)
    inside = [os.path.join(place, "") for place in places]
    holding = [number for number, place in enumerate(inside) if path.startswith(place)]
    if not holding:
        return -1, path
    preferred = range(len(places))[first]
    number = max(holding, key=lambda n: (n in preferred, len(inside[n])))
    return number, path[len(inside[number]) :]


def input_digest(one: Input) -> str | None:
    """Return the digest of an input's bytes, or None where they cannot be read."""
    state = hashlib.blake2b(digest_size=16)
    try:
        with open(one.path, "rb", buffering=0) as file:
            if not one.parts:
                while chunk := file.read(_CHUNK):
                    state.update(chunk)
            for offset, size in one.parts:
                file.seek(offset)
                state.update(file.read(size))
    except OSError:
        return None
    return state.hexdigest()


def changed_units(
    noted: Iterable[tuple[int, list[Note], Sequence[str]]],
    places: Sequence[str],
    *,
    tick: Callable[[int], object] = lambda units: None,
) -> list[Changed]:
    """Return the units whose inputs are not what they were.

    Args:
        noted: unit, its notes, and the real paths of its places when it was made.
        places: the folders now.
        tick: called with the number of units that were compared.
    """
    here = [os.path.abspath(place) for place in places]
    real = [os.path.realpath(place) for place in places]
    state = functools.lru_cache(maxsize=4096)(read_state)  # many units read one tar

    def compare(group: list[tuple[int, list[Note], Sequence[str]]]) -> list[Changed]:
        different = []
        for unit, notes, there in group:
            note = next((n for n in notes if not _is_same(n, here, state)), None)
            if note is not None:
                place = note[0]
                moved = place >= 0 and list(there[place : place + 1]) != real[place : place + 1]
                different.append(Changed(unit, note[1], moved))
        return different

    changed: list[Changed] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="inputs") as pool:
        waiting: list[Future[list[Changed]]] = []
        units = iter(noted)
        while group := list(islice(units, _UNITS)):
            waiting.append(pool.submit(compare, group))
            if len(waiting) > 4 * _THREADS:
                changed += waiting.pop(0).result()
                tick(len(group))
        for future in waiting:
            changed += future.result()
    return sorted(changed)


def _is_same(note: Note, places: Sequence[str], state: Callable[[str], State]) -> bool:
    place, name, before, digest, *parts = note
    if before is False or place >= len(places):
        return False
    path = os.path.join(places[place], name) if place >= 0 else name
    now = state(path)
    if now == before:
        return True
    if not now or not before or digest is None:
        return False
    if not parts and now[0] != before[0]:
        return False
    ranges = tuple((offset, size) for offset, size in parts[0]) if parts else ()
    return bool(input_digest(Input(path, ranges)) == digest)
