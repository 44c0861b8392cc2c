"""Scores of images and prompts do not depend on the batch; the published ones on demand."""

import numpy as np
import pytest
import torch
from PIL import Image

from lavis.generators.build import build_scorer
from lavis.generators.config import ImagesConfig
from lavis.generators.scoring import ClipScorer


def test_a_long_text_beside_it_changes_no_score(clip_folder):
    scorer = ClipScorer.from_pretrained(clip_folder, device="cpu")
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    short, long = "a cat", "b d " * 60
    together = scorer.score([short, long, short], [image] * 3)
    assert together.dtype == np.float32
    assert together[0] == pytest.approx(together[2], abs=1e-6)  # rows of one product
    alone = [scorer.score([text], [image])[0] for text in (short, long)]
    np.testing.assert_allclose(together[:2], alone, atol=1e-6)
    cut = scorer.encoder.embed_texts(["b d " * 60]), scorer.encoder.embed_texts(["b d " * 38 + "b"])
    torch.testing.assert_close(*cut)  # 75 letters between start and end
    faulty = ClipScorer.from_pretrained(clip_folder, device="cpu", compat="released")
    assert abs(faulty.score([short, long], [image] * 2)[0] - alone[0]) > 1e-3
    assert faulty.fingerprint() != scorer.fingerprint()
    assert scorer.score([], []).shape == (0,)


def test_a_runs_section_names_the_model_and_the_rule(clip_folder):
    options = {"clip_model": clip_folder, "device": "cpu", "generator": "folder"}
    plain = build_scorer(ImagesConfig(**options), None)
    released = build_scorer(ImagesConfig(**options, clip_compat="released"), None)
    assert (plain.encoder.compat, released.encoder.compat) == (None, "released")
    assert released.fingerprint() == {**plain.fingerprint(), "compat": "released"}
    assert build_scorer(ImagesConfig(**options, scorer=None), None) is None
