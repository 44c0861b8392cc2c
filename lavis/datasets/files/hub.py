"""Published tables from the Hugging Face hub, and the Arrow files that `datasets` keeps of them."""

from __future__ import annotations

from typing import Any

from lavis.common.errors import ConfigError, DataError, brief
from lavis.common.pretrained import load_table


def fetch_table(name: str, config: str | None, split: str, *, advice: str) -> Any:
    """Return a data set's split, fetched on first use.

    Args:
        name: id on the hub.
        config: one of its configurations.
        advice: what to do where it cannot be fetched.

    Raises:
        ConfigError: the package `datasets` is missing.
        DataError: it cannot be fetched.
    """
    try:
        return load_table(name, config, split)
    except ImportError:
        raise ConfigError(
            f"'{name}': the package datasets is missing; install it, or {advice}"
        ) from None
    except Exception as error:  # network, hub and format errors come as several unrelated types
        raise DataError(f"'{name}' cannot be fetched ({brief(error)}); {advice}") from None


def hub_files(name: str, config: str | None, split: str, *, section: str, local: str) -> list[str]:
    """Return the Arrow files of a data set's split, fetched on first use.

    Args:
        name: id on the hub.
        config: one of its configurations.
        section: of the data set, such as `wiki`; named in messages.
        local: what a local folder would hold, for messages.

    Raises:
        ConfigError, DataError: as `fetch_table`; the message says where to put local files.
    """
    advice = f"put {local} into a folder and set datasets.{section}.data_dir to it"
    table = fetch_table(name, config, split, advice=advice)
    return [entry["filename"] for entry in table.cache_files]
