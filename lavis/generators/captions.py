"""Captioned images of a folder: captions in memory, images read when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavis.common.errors import DataError, nearest
from lavis.generators.config import RetrievalConfig
from lavis.generators.image_files import decode, existing_folder, inside, read_json_lines


class CaptionedImages:
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
        """Return the RGB image of a row.

        Raises:
            DataError: it is missing, outside the folder, or cannot be read.
        """
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
        found: set[str] = set()
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
                    found.add(name)
        return sorted(found)

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


def _texts(value: Any) -> list[str]:
    """Return the captions of a cell: a text, a list of texts, or nothing."""
    found = [value] if isinstance(value, str) else value or []
    return [text for text in found if isinstance(text, str) and text.strip()]
