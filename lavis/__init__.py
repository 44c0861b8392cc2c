"""Visual commonsense research: localized knowledge distillation and late image fusion.

Importing this package is light: torch and transformers are imported when a registered name is used.
"""

from importlib import metadata as _metadata

__version__ = "0.1.0"


def _refuse_salesforce_lavis() -> None:
    """Both distributions provide `lavis`; installed together, each would run the other's files."""
    try:
        found = _metadata.version("salesforce-lavis")
    except _metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"salesforce-lavis {found} is installed beside lavis-commonsense, and both provide the"
        " import name 'lavis'; run `pip uninstall salesforce-lavis`, then install"
        " lavis-commonsense again, or use a separate virtual environment"
    )


_refuse_salesforce_lavis()
