"""A folder for each family of tiny models, made once, and random pictures."""

import numpy as np
import pytest
import torch
from tiny_vlm import BUILDERS, make_vlm, skip_absent


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory):
    """Return the folder of a family's tiny model; skips where transformers lacks the family."""
    made = {}

    def folder(family):
        skip_absent(family)
        if family not in made:
            made[family] = make_vlm(family, tmp_path_factory.mktemp("vlm") / family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def views():
    """Three images of unlike sizes, one view each, uint8 (3, H, W)."""
    draw = np.random.default_rng(0)
    sizes = [(90, 130), (64, 64), (150, 70)]
    return [[torch.from_numpy(draw.integers(0, 256, (3, *size), dtype=np.uint8))] for size in sizes]


@pytest.fixture(params=sorted(BUILDERS))
def family(request):
    """Every family of the tiny models."""
    return request.param
