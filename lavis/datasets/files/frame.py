"""A whole record file as a pandas table, to look at."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lavis.common.errors import DataError, RecordError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def read_frame(path: str, *, nrows: int | None = None) -> pd.DataFrame:
    """Return the records of a file as a table, a column a key; everything is held in memory.

    Cells keep their Python values: token lists with their lists of region ids, references, whole
    numbers. A key that a record lacks is missing (NaN) in its row. The table's index is the row
    number in the file; rows that cannot be read are left out, and a warning counts them.

    Args:
        path: record file or folder of any form that the data sets read, or a pattern.
        nrows: read the first so many rows only.

    Raises:
        DataError: the file cannot be read, or holds no record.
    """
    import pandas as pd

    from lavis.datasets.files.formats import open_records

    store = open_records([str(path)])
    records: dict[int, dict[str, Any]] = {}
    bad: list[str] = []
    for row in range(len(store) if nrows is None else min(nrows, len(store))):
        try:
            records[row] = store.read(row)
        except RecordError as error:
            bad.append(f"row {row}: {error.reason}")
    if bad:
        logger.warning("%s: %d rows left out (%s)", path, len(bad), bad[0])
    if not records:
        raise DataError(f"{path}: no records" + (f" ({bad[0]})" if bad else ""))
    names = dict.fromkeys(name for record in records.values() for name in record)
    # Column by column as objects: pandas would make lists of equal length two-dimensional, and
    # whole numbers beside a missing one floats.
    columns = {}
    for name in names:
        cells = [record.get(name, float("nan")) for record in records.values()]
        column = pd.Series(cells, index=list(records), dtype=object)
        is_whole = all(record.get(name) is not None for record in records.values())
        columns[name] = column.infer_objects() if is_whole else column
    return pd.DataFrame(columns)
