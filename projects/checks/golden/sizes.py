"""Models in the sizes that a set's `config.json` names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lavis.common.registry import models
from lavis.models.blip2.config import QFormerConfig, VitConfig


def model_fields(config: dict[str, Any], max_txt_len: int) -> dict[str, Any]:
    """Return the `model` section for the sizes in a set's `config.json`."""
    dims, eps = config["dims"], config["layer_norm_eps"]
    return {
        "model_type": "pretrain",
        "load_pretrained": False,
        "image_size": config["image_size"],
        "num_query_token": dims["num_query"],
        "cross_attention_freq": dims["cross_freq"],
        "vit_precision": "fp32",
        "max_txt_len": max_txt_len,
        "vit": {
            "embed_dim": dims["vit_dim"],
            "depth": dims["vit_depth"],
            "num_heads": dims["vit_heads"],
            "mlp_ratio": dims["mlp_ratio"],
            "patch_size": dims["patch"],
        },
        "qformer": {
            "hidden_size": dims["q_hidden"],
            "num_hidden_layers": dims["q_layers"],
            "num_attention_heads": dims["q_heads"],
            "intermediate_size": dims["q_inter"],
            "layer_norm_eps": eps["qformer"],
        },
    }


def build(
    arch: str, cls: Any, fields: dict[str, Any], weights: dict[str, Tensor], **more: Any
) -> Any:
    """Return the model in evaluation mode with every weight of the set loaded."""
    fields = {**fields, **more, "arch": arch}
    fields["vit"] = VitConfig(**fields["vit"])
    fields["qformer"] = QFormerConfig(**fields["qformer"])
    model = models.get(arch)(cls(**fields))
    model.load_state(weights, strict_frozen=True)
    return model.eval()
