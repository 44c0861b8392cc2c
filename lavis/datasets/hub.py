"""Published tables from the Hugging Face hub, as the Arrow files that `datasets` keeps of them."""

from __future__ import annotations

from lavis.common.errors import DataError
from lavis.common.pretrained import load_table


def hub_files(name: str, config: str | None, split: str, *, section: str, local: str) -> list[str]:
    """Return the Arrow files of a data set's split, fetched on first use.

    Args:
        name: id on the hub.
        config: one of its configurations.
        section: of the data set, such as `wiki`; named in messages.
        local: what a local folder would hold, for messages.

    Raises:
        DataError: it cannot be fetched; the message says where to put local files.
    """
    advice = f"put {local} into a folder and set datasets.{section}.data_dir to it"
    try:
        table = load_table(name, config, split)
    except ImportError:
        raise DataError(
            f"'{name}': the package datasets is missing; install it, or {advice}"
        ) from None
    except Exception as error:  # network, hub and format errors come as several unrelated types
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"'{name}' cannot be fetched ({reason}); {advice}") from None
    return [entry["filename"] for entry in table.cache_files]
