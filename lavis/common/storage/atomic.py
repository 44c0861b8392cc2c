"""Files and folders that appear under their name only when they are whole.

Content is written beside its target, under a name that identifies its writer; it is synced to the
disk and only then renamed, so that a reader, or a power cut, meets the old content or the new one.
An error, an interrupt and the end of the process remove what is not whole. What a killed process
left is removed by the next process that writes into the same folder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from lavis.common.storage.leftovers import part_name, remove, sweep_once

logger = logging.getLogger(__name__)

_BUFFER = 1 << 18  # bytes
# Errors of writing that Python reports without the file's name.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class _Pending(ABC):
    """What is being written under a name of its own, and the one name it will have."""

    _direct = False  # the target is no regular file, and is written to itself

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        """Name the target; nothing is written yet.

        Args:
            path: may be set anew, within the same folder, until the block ends: for names that
                depend on the content. A symbolic link's target is replaced; what is no regular
                file, such as `/dev/stdout`, is written to directly.
            sync: bring the content to the disk before it is renamed. Only content whose readers
                check it, such as cache entries, may do without.
        """
        self.path = Path(path)
        self._sync = sync
        self._temporary: Path | None = None
        self._forget: weakref.finalize[..., Any] | None = None

    def _begin(self) -> Path:
        """Return the name to write under: a new one, or the target's where it is no file."""
        target = Path(os.path.realpath(self.path))
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(str(target.parent))
        self._temporary = part_name(target)
        self._forget = weakref.finalize(self, remove, str(self._temporary), os.getpid())
        return self._temporary

    def _finish(self) -> None:
        """Rename; nothing is left where that fails."""
        assert self._temporary is not None
        try:
            target = Path(os.path.realpath(self.path))
            self._put(self._temporary, target)
            if self._sync:
                sync_folder(target.parent)
        except BaseException as error:
            self._discard()
            self._named(error)
            raise
        if self._forget is not None:
            self._forget.detach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._direct:
            self._close()
        elif error is None:
            self._finish()
        else:
            with contextlib.suppress(OSError, ValueError):  # a full disk refuses the buffer again
                self._close()
            self._discard()
            self._named(error)

    def _close(self) -> None:  # noqa: B027 - paths and folders have nothing to close
        """Close what the block wrote to."""

    @abstractmethod
    def _put(self, temporary: Path, target: Path) -> None:
        """Rename what is whole."""

    def _discard(self) -> None:
        if self._forget is not None:
            self._forget()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._named(error)
            raise

    def _named(self, error: BaseException) -> None:
        """Put the target's name into a write error with no name, or the temporary's."""
        if not isinstance(error, OSError):
            return
        is_ours = self._temporary is not None and str(error.filename).startswith(
            str(self._temporary)
        )
        if is_ours or (error.filename is None and error.errno in _WRITING):
            error.filename, error.filename2 = str(self.path), None


class AtomicFile(_Pending):
    """A binary file that replaces its target when the `with` block ends without an error.

    The file's rights are those of any new file, or those of the file that is replaced.

    Raises:
        OSError: the folder cannot be written to, the disk is full; the target is as it was.
    """

    _file: BinaryIO

    def __enter__(self) -> BinaryIO:
        mode = _mode_of(self.path)
        if mode is not None and not stat.S_ISREG(mode):
            self._direct = True
            self._file = open(self.path, "wb", buffering=_BUFFER)
            return self._file
        with self._naming():
            number = _create(self._begin())
        if mode is not None:
            with contextlib.suppress(OSError):  # file systems without rights
                os.fchmod(number, stat.S_IMODE(mode))
        self._file = os.fdopen(number, "wb", buffering=_BUFFER)
        return self._file

    def _close(self) -> None:
        self._file.close()

    def _put(self, temporary: Path, target: Path) -> None:
        try:
            self._file.flush()
            if self._sync:
                _sync(self._file.fileno())
        finally:
            self._file.close()
        os.replace(temporary, target)


class AtomicPath(_Pending):
    """Like `AtomicFile`, but the `with` block gets the path of an empty file.

    It lies in a folder of its own, as some writers (safetensors, sqlite) put more files beside it.
    """

    _mode = 0o666
    _inner: Path

    def __enter__(self) -> Path:
        mode = _mode_of(self.path)
        if mode is not None and not stat.S_ISREG(mode):
            self._direct = True
            return self.path
        folder = self._begin()
        self._inner = folder / Path(os.path.realpath(self.path)).name
        with self._naming():
            folder.mkdir()
            number = _create(self._inner)
        self._mode = stat.S_IMODE(os.fstat(number).st_mode if mode is None else mode)
        os.close(number)
        return self._inner

    def _put(self, temporary: Path, target: Path) -> None:
        with contextlib.suppress(OSError):  # file systems without rights
            os.chmod(self._inner, self._mode)  # some writers deny reading to others
        if self._sync:
            _sync_path(self._inner)
        os.replace(self._inner, target)
        shutil.rmtree(temporary, ignore_errors=True)


class AtomicFolder(_Pending):
    """A folder that replaces its target when the `with` block ends without an error.

    A folder cannot be replaced in one step. `recover_folder` finishes what was killed between the
    steps; call it before the target is read.
    """

    def __enter__(self) -> Path:
        temporary = self._begin()
        with self._naming():
            temporary.mkdir()
        return temporary

    def _put(self, temporary: Path, target: Path) -> None:
        if self._sync:
            for folder, _, names in os.walk(temporary):
                for name in names:
                    _sync_path(Path(folder, name))
                sync_folder(Path(folder))
        recover_folder(target)
        new, old = _siblings(target)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        os.rename(temporary, new)  # from here on `recover_folder` finds the new one
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
        shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: str | os.PathLike[str]) -> None:
    """Finish the renames of an `AtomicFolder` that was killed between them."""
    target = Path(os.path.realpath(path))
    if target.exists():
        return
    for whole in _siblings(target):
        if whole.exists():
            os.rename(whole, target)
            logger.info("recovered %s from an interrupted save", target)
            return


def write_bytes(path: str | os.PathLike[str], content: bytes, *, sync: bool = True) -> None:
    """Write a whole file, or leave it as it was."""
    with AtomicFile(path, sync=sync) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file in UTF-8, or leave it as it was."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> None:
    """Write a JSON file that ends in a line break, or leave it as it was."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Bring a folder's list of names to the disk, where the system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:  # some file systems cannot
        return
    finally:
        os.close(number)


def _mode_of(path: Path) -> int | None:
    """Return type and permissions of a path's target, or None; `IsADirectoryError` for a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return mode


def _create(path: Path) -> int:
    """Return the number of a new open file, with the rights that the umask leaves."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags, 0o666)


def _sync(number: int) -> None:
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # it cannot
            raise


def _sync_path(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        _sync(number)
    finally:
        os.close(number)


def _siblings(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
