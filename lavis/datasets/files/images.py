"""Image files: located inside their root, opened within limits, decoded to RGB exactly as stored.

An image is a file, or a member of a tar read by its offset. Draft decoding is never used, so
pixels do not depend on the size used later. Orientation tags (EXIF) are not applied: boxes count
pixels in the frame in which the image is stored.
"""

from __future__ import annotations

import functools
import io
import os
import stat
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lavis.common.errors import DECODE_REFUSALS, RecordError, brief, may_pass, printable
from lavis.common.pixels import IMAGE_REFUSALS, to_rgb
from lavis.common.storage.foreign import foreign_kind_of

# Formats that Pillow reads without an outside program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Where an image's bytes are.

    Attributes:
        name: name in the record; used in reasons and keys, which hold no machine paths.
        path: the file, or the tar that holds it.
        size: bytes.
        mtime_ns: change time of the file, so that a replaced image gets another key.
        offset: first byte inside a tar; None for a file of its own.
        ctime_ns: status time, which reveals a replaced image of the same size and change time.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    offset: int | None = None
    ctime_ns: int = 0

    def identity(self) -> list[str | int | None]:
        """Return what identifies this image's bytes; no machine path in it."""
        return [self.name, self.size, self.mtime_ns, self.offset, self.ctime_ns]


class ImageRoot:
    """Folder that image names are relative to.

    Args:
        follow_symlinks: accept links inside it that lead out of it.
        must_exist: False checks names only and touches no file.
    """

    def __init__(
        self, root: str, *, follow_symlinks: bool = False, must_exist: bool = True
    ) -> None:
        self.root = root
        self.follow_symlinks = follow_symlinks
        self.must_exist = must_exist
        self._real = os.path.realpath(root)
        # whether a name is refused never changes; a file's state is checked on each call of `find`
        self._refused = functools.lru_cache(maxsize=65536)(self._refuse_name)
        self._inside = functools.lru_cache(maxsize=65536)(self._is_inside)

    def __getstate__(self) -> dict[str, object]:
        kept = ("root", "follow_symlinks", "must_exist")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def find(self, name: object) -> ImageFile:
        """Return the file; raises `RecordError` for no name, one outside the root, or not there."""
        if not isinstance(name, str):
            raise RecordError(f"wrong type: image is {type(name).__name__}, expected a path")
        reason = self._refused(name)
        if reason is not None:
            raise RecordError(reason)
        path = os.path.join(self.root, name)
        if not self.must_exist:
            return ImageFile(name, path, 0, 0)
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            if may_pass(error):
                raise RecordError(f"unreadable image: {error}"[:300], may_pass=True) from None
            raise RecordError(f"missing image: {name}"[:300], paths=[path]) from None
        if not self.follow_symlinks and not self._inside(path):
            reason = f"path leaves the image root: {name!r} is a link out of it"
            raise RecordError(reason, paths=[path])
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"missing image: {name} is not a file", paths=[path])
        return ImageFile(
            name, path, status.st_size, status.st_mtime_ns, ctime_ns=status.st_ctime_ns
        )

    def _is_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(os.path.join(self._real, ""))

    @staticmethod
    def _refuse_name(name: str) -> str | None:
        """Return why a name cannot be an image's, whatever files exist."""
        if not name.strip():
            return "missing image: the name is empty"
        if printable(name) != name:
            return f"file name that is not UTF-8: {printable(name)}"[:300]
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or ".." in parts or os.path.isabs(name) or parts[0].endswith(":"):
            return f"path leaves the image root: {name!r}"[:300]
        return None


def _open(file: ImageFile, max_pixels: int) -> Image.Image:
    """Open without decoding pixels."""
    try:
        if file.offset is None:
            image = Image.open(file.path, formats=_FORMATS)
        else:
            with open(file.path, "rb") as stream:
                stream.seek(file.offset)
                image = Image.open(io.BytesIO(stream.read(file.size)), formats=_FORMATS)
    except FileNotFoundError:
        raise RecordError(f"missing image: {file.name}", paths=[file.path]) from None
    except Image.DecompressionBombError:
        raise RecordError(f"oversized image: {file.name} is over Pillow's limit") from None
    except Image.UnidentifiedImageError:
        kind = foreign_kind_of(file.path, offset=file.offset or 0)
        what = f"it is {kind}" if kind else "not a known image format"
        raise RecordError(f"broken image: {file.name}: {what}") from None
    except DECODE_REFUSALS as error:
        reason = f"broken image: {file.name}: {brief(error)}"
        raise RecordError(reason, may_pass=may_pass(error)) from None
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise RecordError(
            f"oversized image: {file.name} has {width} x {height} pixels, limit {max_pixels}"
        )
    return image


def image_size(file: ImageFile, max_pixels: int) -> tuple[int, int]:
    """Return (width, height) of the header; raises `RecordError` for no image or over the limit."""
    with _open(file, max_pixels) as image:
        return image.size


def decode_image(file: ImageFile, max_pixels: int) -> Image.Image:
    """Return all pixels as RGB; raises `RecordError` for a broken image or over the limit."""
    with _open(file, max_pixels) as image:
        try:
            return to_rgb(image)
        except IMAGE_REFUSALS as error:
            reason = f"broken image: {file.name}: {brief(error)}"
            raise RecordError(reason, may_pass=may_pass(error)) from None
