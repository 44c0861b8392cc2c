"""Visual Genome's region descriptions as one Arrow file: 5.4 million rows with random access.

The published `region_descriptions.json`, one list of 108 thousand objects in one line, is read in
pieces and written to the cache once; so are tables with a list of regions in each row, as Hugging
Face `datasets` keeps them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis.common.errors import REFUSALS, DataError
from lavis.datasets.files.arrow import ArrowFile, write_batches
from lavis.datasets.files.built import built_once, cache_folder, digest_of, file_identity
from lavis.datasets.files.items import read_list

logger = logging.getLogger(__name__)

VERSION = 1  # of the written form
_ROWS = 20_000  # of a written batch
_LOG_SECONDS = 10.0
_NUMBERS = ("x", "y", "width", "height")


def region_index(path: str, cache_dir: str | None = None) -> ArrowFile:
    """Return the regions of a published JSON file, written on first use."""
    return _index([path], cache_dir, lambda: _json_batches(path))


def region_index_of_tables(tables: Sequence[ArrowFile], cache_dir: str | None = None) -> ArrowFile:
    """Return the regions of tables with a row for each image; `picture` is its row number.

    Raises:
        DataError: no column `regions`.
    """
    for table in tables:
        if "regions" not in table.columns:
            raise DataError(f"{table.path}: no column 'regions' (found {', '.join(table.columns)})")
    return _index([table.path for table in tables], cache_dir, lambda: _table_batches(tables))


def _index(paths: Sequence[str], cache_dir: str | None, batches: Any) -> ArrowFile:
    digest = digest_of(["regions", VERSION, [file_identity(path) for path in paths]])
    target = cache_folder(cache_dir) / f"{digest}.arrow"

    def build(temporary: Path) -> None:
        logger.info("writing the regions of %s to %s, once", ", ".join(paths[:3]), target)
        if not write_batches(temporary, batches()):
            raise DataError(f"{paths[0]}: no regions")

    return ArrowFile(paths[0], str(built_once(target, build)))


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("region_id", pa.int64()),
            *((name, pa.float32()) for name in _NUMBERS),
            ("phrase", pa.string()),
            ("picture", pa.int64()),
        ]
    )


def _json_batches(path: str) -> Iterator[Any]:
    count, shown = 0, time.monotonic()
    rows: list[Any] = []
    for entry in read_list(path):
        regions = entry.get("regions") if isinstance(entry, dict) else None
        if not isinstance(regions, list):
            raise DataError(f"{path}: an object with a list 'regions' was expected in the list")
        for region in regions:
            if isinstance(region, dict):
                region.setdefault("image_id", entry.get("id", entry.get("image_id")))
        rows += regions
        if len(rows) >= _ROWS:
            yield _batch(rows)
            count += len(rows)
            rows = []
            if time.monotonic() - shown > _LOG_SECONDS:
                shown = time.monotonic()
                logger.info("%s: read %d regions", path, count)
    yield _batch(rows)


def _batch(regions: list[Any]) -> Any:
    """Return regions as columns; missing values and wrong types become null."""
    import pyarrow as pa

    schema = _schema()
    arrays = []
    for field in schema:
        if field.name == "picture":
            arrays.append(pa.nulls(len(regions), field.type))
            continue
        try:
            arrays.append(pa.array([region[field.name] for region in regions], field.type))
        except REFUSALS:
            values = [_fitting(region, field) for region in regions]
            arrays.append(pa.array(values, field.type))
    return pa.record_batch(arrays, schema=schema)


def _fitting(region: Any, field: Any) -> Any:
    """Return a region's value where it fits the column, else None."""
    import pyarrow as pa

    try:
        return pa.scalar(region[field.name], field.type).as_py()
    except REFUSALS:
        return None


def _table_batches(tables: Sequence[ArrowFile]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    first = 0
    for table in tables:
        for batch in table.batches:
            column = batch.column("regions")
            if pa.types.is_struct(column.type):  # a struct of lists, as older `datasets` kept it
                regions = {f.name: pc.list_flatten(column.field(f.name)) for f in column.type}
                parents = pc.list_parent_indices(column.field("phrase"))
            else:
                flat = pc.list_flatten(column)
                regions = {f.name: flat.field(f.name) for f in flat.type}
                parents = pc.list_parent_indices(column)
            if "image_id" not in regions and "image_id" in table.columns:
                regions["image_id"] = pc.take(batch.column("image_id"), parents)
            regions["picture"] = pc.add(pc.cast(parents, pa.int64()), first)
            arrays = [_cast(regions.get(f.name), f.type, len(parents)) for f in _schema()]
            yield pa.record_batch(arrays, schema=_schema())
            first += batch.num_rows


def _cast(column: Any, kind: Any, count: int) -> Any:
    import pyarrow as pa

    return pa.nulls(count, kind) if column is None else column.cast(kind)


def find_published(folder: str) -> str | None:
    """Return `region_descriptions.json` (or compressed) of a folder or one below it, or None."""
    endings = [f"region_descriptions.json{packed}" for packed in ("", ".gz", ".zip")]
    for path in (folder, *sorted(e.path for e in os.scandir(folder) if e.is_dir())):
        for ending in endings:
            candidate = os.path.join(path, ending)
            if os.path.isfile(candidate):
                return candidate
    return None
