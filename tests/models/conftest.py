"""Golden values of the released code, and tiny critics that load them."""

import json
import lzma
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load, load_file

from lavis.models.blip2.config import CriticConfig
from lavis.models.blip2.critic import Blip2Critic

GOLDEN = Path(__file__).parents[1] / "fixtures" / "lskd"
TINY = {
    "model_type": "pretrain",
    "load_pretrained": False,
    "image_size": 28,
    "num_query_token": 8,
    "max_txt_len": 16,
    "vit": {"embed_dim": 64, "depth": 3, "num_heads": 4},
    "qformer": {
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    },
}


def read_state(part):
    return load(lzma.open(GOLDEN / part / "state_dict.safetensors.xz").read())


@pytest.fixture(scope="session")
def golden():
    """The critic part of the golden set."""
    texts = json.loads((GOLDEN / "critic" / "texts.json").read_text())["texts"]
    return SimpleNamespace(
        root=GOLDEN,
        state=read_state("critic"),
        inputs=load_file(GOLDEN / "critic" / "inputs.safetensors"),
        outputs=load_file(GOLDEN / "critic" / "outputs.safetensors"),
        gradients=load_file(GOLDEN / "critic" / "gradients.safetensors"),
        trainable=json.loads((GOLDEN / "critic" / "trainable.json").read_text()),
        optimizer_groups=json.loads((GOLDEN / "critic" / "optimizer_groups.json").read_text()),
        texts=[text["text"] for text in texts],
    )


@pytest.fixture(scope="session")
def tiny_config():
    """Build a `CriticConfig` of the golden sizes, with changes."""
    return lambda **changes: CriticConfig(**{**TINY, **changes})


@pytest.fixture
def make_critic(golden, tiny_config):
    """Build a critic with the golden weights, in evaluation mode."""

    def make(**changes):
        torch.manual_seed(0)
        model = Blip2Critic(tiny_config(**changes))
        model.load_state(golden.state, strict_frozen=True)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def tiny_sizes():
    """The `model` section of the golden sizes."""
    return dict(TINY)


@pytest.fixture(scope="session")
def stage1_golden():
    """Folder of the stage-1 part of the golden set."""
    return GOLDEN / "stage1"


@pytest.fixture(scope="session")
def stage1_state():
    """Weights of the stage-1 part of the golden set."""
    return read_state("stage1")
