"""Images whose captions are nearest to a prompt; index i is the i-th nearest image.

Captions are kept in memory, images are read on request.

Shapes: M captions, N prompts, E width of a text vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from lavis.common.errors import DataError, nearest
from lavis.common.registry import generators
from lavis.common.storage.content import content_digest
from lavis.generators.base import ImageGenerator, ImageRequest
from lavis.generators.config import RetrievalConfig
from lavis.generators.image_files import (
    decode,
    existing_folder,
    files_identity,
    inside,
    read_json_lines,
)

# Options covered by the hash of the content, or without effect on the images.
_NO_PIXELS = {"records", "image_root", "clip_model", "batch_size", "device"}
_BLOCK = 4_000_000  # similarities in memory at a time
_DECIMALS = 6  # similarities that differ by less tie, so that rounding cannot change the order

EmbedTexts = Callable[[Sequence[str]], np.ndarray]


class CaptionedFolder:
    """Rows of a `.jsonl` or `.parquet` file: an image each, with one caption or several.

    Attributes:
        captions: every caption, in the order of the rows.
        row_of_caption: `(M,)` int64, the row each caption belongs to.
        has_caption: `(rows,)` booleans.
    """

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config
        self.path = Path(config.records).expanduser()
        self.image_field, self.caption_field = config.image_field, config.caption_field
        if not self.path.is_file():
            raise DataError(f"retrieval generator, records: no such file: {self.path}")
        root = config.image_root or str(self.path.parent)
        self.root = existing_folder(root, "retrieval generator, image_root")
        self._parquet: Any = None
        self._names: list[str] = []
        self._group_starts = np.zeros(1, dtype=np.int64)
        self._group: tuple[int, list[Any]] = (-1, [])
        if self.path.suffix.lower() in (".parquet", ".pq"):
            captions = self._open_parquet()
        else:
            captions = self._open_lines()
        self.captions = [text for texts in captions for text in texts]
        counts = np.array([len(texts) for texts in captions], dtype=np.int64)
        self.row_of_caption = np.repeat(np.arange(len(counts)), counts)
        self.has_caption = counts > 0
        if not self.captions:
            raise DataError(f"{self.path}: no row has a text in '{self.caption_field}'")

    def __len__(self) -> int:
        return len(self.has_caption)

    def read(self, row: int) -> Image.Image:
        """Return a row's RGB image; `DataError` if missing, outside the folder or unreadable."""
        value = self._names[row] if self._parquet is None else self._cell(row)
        if isinstance(value, dict):  # the form of Hugging Face data sets
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return decode(value, f"{self.path.name}, row {row}")
        if not isinstance(value, str):
            raise DataError(f"{self.path}, row {row}: no image in '{self.image_field}'")
        return decode(inside(self.root, value).read_bytes(), value)

    def file_names(self) -> list[str]:
        """Return the images that lie beside the records; those inside a parquet are not named."""
        if self._parquet is None:
            return sorted(set(self._names))
        files: set[str] = set()
        for group in range(len(self._group_starts) - 1):
            kind = self._parquet.schema_arrow.field(self.image_field).type
            column = self.image_field
            if str(kind).startswith("struct"):  # the form of Hugging Face data sets
                names = [kind.field(n).name for n in range(kind.num_fields)]
                if "path" not in names or "bytes" in names:
                    continue
                column = f"{self.image_field}.path"
            elif "string" not in str(kind):
                continue
            table = self._parquet.read_row_group(group, columns=[column])
            for value in table.column(0).to_pylist():
                name = value.get("path") if isinstance(value, dict) else value
                if isinstance(name, str):
                    files.add(name)
        return sorted(files)

    def _open_lines(self) -> list[list[str]]:
        captions = []
        for number, record in read_json_lines(self.path):
            for field in (self.image_field, self.caption_field):
                if field not in record:
                    raise DataError(
                        f"{self.path}, line {number}: no '{field}'{nearest(field, record)}"
                    )
            if not isinstance(record[self.image_field], str):
                raise DataError(f"{self.path}, line {number}: '{self.image_field}' is no file name")
            self._names.append(record[self.image_field])
            captions.append(_texts(record[self.caption_field]))
        return captions

    def _open_parquet(self) -> list[list[str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._parquet = pq.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.path}: not a parquet file: {error}") from None
        columns = self._parquet.schema_arrow.names
        for field in (self.image_field, self.caption_field):
            if field not in columns:
                raise DataError(f"{self.path}: no column '{field}'{nearest(field, columns)}")
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._group_starts = np.cumsum([0, *sizes])
        table = self._parquet.read(columns=[self.caption_field])
        return [_texts(value) for value in table.column(0).to_pylist()]

    def _cell(self, row: int) -> Any:
        """Return the image of a parquet row; the last row group stays in memory."""
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        if self._group[0] != group:
            column = self._parquet.read_row_group(group, columns=[self.image_field]).column(0)
            self._group = (group, column.to_pylist())
        return self._group[1][row - int(self._group_starts[group])]


class TextIndex(Protocol):
    """Captions that prompts are compared with."""

    def similarity(self, prompts: Sequence[str]) -> np.ndarray:
        """Return `(N, M)`."""

    def release(self) -> None:
        """Take the encoder of texts off its device."""

    def fingerprint(self) -> dict[str, Any]:
        """Return how texts are compared; JSON-able."""


class TfidfIndex:
    """Cosine of TF-IDF vectors of lower-case words.

    A word weighs `(1 + ln tf) (1 + ln((1 + M) / (1 + df)))`; df captions out of M hold it.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(
            sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float64
        )
        self._captions = self._vectorizer.fit_transform([*captions])

    def similarity(self, prompts: Sequence[str]) -> np.ndarray:
        """Return `(N, M)`; 0 where no word is shared."""
        return (self._vectorizer.transform(prompts) @ self._captions.T).toarray()

    def release(self) -> None:
        """Do nothing: it is in memory."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the kind of index; its weights are a function of the captions."""
        return {"similarity": "tfidf"}


class EmbeddingIndex:
    """Dot products of unit text vectors, such as CLIP's."""

    def __init__(
        self,
        captions: Sequence[str],
        embed: EmbedTexts,
        identity: Any,
        *,
        batch_size: int = 64,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._embed, self._identity, self.release = embed, identity, release
        parts = [
            embed(captions[start : start + batch_size])
            for start in range(0, len(captions), batch_size)
        ]
        self._captions = np.concatenate(parts)  # (M, E)

    def similarity(self, prompts: Sequence[str]) -> np.ndarray:
        """Return `(N, M)`."""
        return self._embed(prompts) @ self._captions.T

    def fingerprint(self) -> dict[str, Any]:
        """Return the kind of index and whose vectors they are."""
        return {"similarity": "embedding", "of": self._identity}


@generators.register("retrieval")
class RetrievalGenerator(ImageGenerator):
    """Finds images by their captions; the same prompts always give the same images.

    An image with several captions counts by its nearest one. Equal similarities keep the order of
    the records. More images than there are start again at the nearest.
    """

    name: ClassVar[str] = "retrieval"
    uses_seed: ClassVar[bool] = False

    def __init__(self, images: CaptionedFolder, index: TextIndex, *, batch_size: int = 64) -> None:
        self.images = images
        self.index = index
        self.batch_size = batch_size

    @classmethod
    def from_config(cls, config: RetrievalConfig) -> RetrievalGenerator:
        """Read the captions and index them.

        Raises:
            DataError: no records, no captions, or no folder.
            ConfigError: the CLIP model cannot be loaded.
        """
        images = CaptionedFolder(config)
        if config.similarity == "tfidf":
            return cls(images, TfidfIndex(images.captions), batch_size=config.batch_size)
        from lavis.generators.clip import ClipEncoder

        encoder = ClipEncoder.from_pretrained(config.clip_model, device=config.device)
        index = EmbeddingIndex(
            images.captions,
            lambda texts: encoder.embed_texts(texts).cpu().numpy(),
            encoder.fingerprint(),
            batch_size=config.batch_size,
            release=encoder.release,
        )
        return cls(images, index, batch_size=config.batch_size)

    def fingerprint(self) -> dict[str, Any]:
        """Return what records, images and fields are, and how texts are compared."""
        options = {k: v for k, v in asdict(self.images.config).items() if k not in _NO_PIXELS}
        return {
            "name": self.name,
            **options,
            "records": content_digest(self.images.path),
            "pictures": files_identity(self.images.root, self.images.file_names()),
            **self.index.fingerprint(),
        }

    def release(self) -> None:
        """Take the index's encoder off its device."""
        self.index.release()

    def nearest(self, prompts: Sequence[str], count: int) -> list[list[int]]:
        """Return the rows of the `count` nearest images of each prompt, nearest first."""
        ranked: list[list[int]] = []
        size = max(1, _BLOCK // len(self.images.captions))
        for start in range(0, len(prompts), size):
            for similarity in self.index.similarity(prompts[start : start + size]):
                ranked.append(self._order(np.round(similarity, _DECIMALS))[:count].tolist())
        return ranked

    def _order(self, similarity: np.ndarray) -> np.ndarray:
        """Return the rows that have a caption by their nearest one, from similarities `(M,)`."""
        best = np.full(len(self.images), -np.inf)
        np.maximum.at(best, self.images.row_of_caption, similarity)
        return np.argsort(-best, kind="stable")[: self.images.has_caption.sum()]

    def generate(self, requests: Sequence[ImageRequest]) -> list[Image.Image]:
        """Return each request's image, by nearness; `DataError` if it is missing or unreadable."""
        counts: dict[str, int] = {}
        for request in requests:
            counts[request.prompt] = max(counts.get(request.prompt, 0), request.index + 1)
        if not counts:
            return []
        ranked = dict(zip(counts, self.nearest(list(counts), max(counts.values())), strict=True))
        return [
            self.images.read(ranked[r.prompt][r.index % len(ranked[r.prompt])]) for r in requests
        ]


def _texts(value: Any) -> list[str]:
    """Return the captions of a cell: a text, a list of texts, or nothing."""
    texts = [value] if isinstance(value, str) else value or []
    return [text for text in texts if isinstance(text, str) and text.strip()]
