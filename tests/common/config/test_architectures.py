"""Another arch on the command line, and a model that brings its own processors."""

import logging

import pytest
from omegaconf import OmegaConf

from lavis.common.config.architectures import switch_arch, use_own_processors

FILE = {"arch": "blip2", "model_type": "pretrain", "image_size": 480, "dtype": "fp32"}


def switched(options, known=("arch", "model_type", "name", "dtype"), types=("default",)):
    file, chosen = OmegaConf.create(FILE), OmegaConf.create(options)
    return dict(switch_arch(file, chosen, known=known, types=types))


def test_keys_of_the_other_arch_are_left_out_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        section = switched({"arch": "vlm_critic", "name": "org/model"})
    assert section == {
        "arch": "vlm_critic",
        "name": "org/model",
        "model_type": "default",
        "dtype": "fp32",
    }
    assert "model.image_size, model.model_type are left out" in caplog.text


def test_a_type_that_the_chosen_arch_has_stays():
    section = switched({"arch": "blip2_critic"}, known=FILE, types=("pretrain", "default"))
    assert section == {**FILE, "arch": "blip2_critic"}


@pytest.mark.parametrize("own", ["vlm_image", "blip_image_eval"])
def test_processors_of_the_model_take_the_place_of_others(own):
    node = {"name": "vlm_image", "shows": "drawn"}
    preprocess = OmegaConf.create(
        {
            "vis_processor": {"train": node, "eval": node},
            "text_processor": {"train": {"name": "base"}, "eval": {"name": "base"}},
        }
    )
    mine = {"name": own, "shows": "plain"}
    datasets = OmegaConf.create({"corpus": {"vis_processor": {"eval": mine}}})
    use_own_processors(preprocess, datasets)
    result = datasets.corpus.vis_processor
    assert result.eval == (mine if own == "vlm_image" else node)  # its own options stay
    assert result.train == node
    assert datasets.corpus.text_processor.eval == {"name": "base"}
