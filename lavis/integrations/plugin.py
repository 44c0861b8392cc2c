"""Makes `lm_eval --model late_fusion` work: lm-evaluation-harness has no hook for models of others.

`lavis_lm_eval.pth`, which the installation puts beside the package, calls `register` when Python
starts as `lm_eval`; in a Python program, import `lavis.integrations.harness` instead.
"""

from __future__ import annotations

from importlib.util import find_spec

NAME, TARGET = "late_fusion", "lavis.integrations.harness:LateFusionLM"


def register() -> None:
    """Add the name to the harness's models; nothing heavy is imported before it is asked for."""
    if find_spec("lm_eval") is None:  # a command of that name, such as `pip install lm_eval`
        return
    import lm_eval.models  # noqa: F401  # its own names: they are added to an empty list only
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)
