"""`lavis-lm-eval`: the command line of lm-evaluation-harness, with `--model late_fusion` in it.

    lavis-lm-eval --model late_fusion --model_args llm=gpt2,generator=diffusion,k=10 --tasks piqa

The harness looks for no models of other packages (0.4.13: neither an entry point nor an option; and
`--include_path` adds tasks only), so its own command `lm_eval` cannot know the name. Under a
launcher: `accelerate launch -m lavis.integrations.lm_eval_command ...`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from lavis.common.command import REFUSED, command

NAME, TARGET = "late_fusion", "lavis.integrations.harness:LateFusionLM"


def register() -> None:
    """Add the name to the harness's models; nothing heavy is imported before it is used."""
    import lm_eval.models  # noqa: F401  # its own names: they are added to an empty list only
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


@command
def main() -> int:
    """Run the harness's command line on `sys.argv`; return its status, 2 without the harness."""
    if find_spec("lm_eval") is None:
        sys.stderr.write("error: lm-eval is not installed; pip install 'lavis-commonsense[eval]'\n")
        return REFUSED
    from lm_eval.__main__ import cli_evaluate  # what its own console script calls

    register()
    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
