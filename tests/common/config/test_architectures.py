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


SHOWN = {"name": "vlm_image", "shows": "drawn"}
BLIP = {"name": "blip_image_eval", "image_size": "${model.image_size}"}
VLM, OTHER = {"arch": "vlm_critic"}, {"arch": "blip2"}


@pytest.mark.parametrize(
    ("arch", "default", "file", "options", "expected"),
    [
        (VLM, BLIP, None, None, SHOWN),
        (VLM, None, None, None, SHOWN),
        (VLM, BLIP, {"name": "blip_image_eval", "image_size": 364}, None, SHOWN),
        # What a file or the command line says of the model's processor, and nothing of another's.
        (VLM, BLIP, {"name": "vlm_image", "shows": "marks"}, None, {**SHOWN, "shows": "marks"}),
        (VLM, BLIP, {"shows": "marks"}, None, {**SHOWN, "shows": "marks"}),
        (VLM, BLIP, None, {"shows": "marks"}, {**SHOWN, "shows": "marks"}),
        (OTHER, BLIP, {"image_size": 364}, {"shows": "marks"}, {**SHOWN, "shows": "marks"}),
        (OTHER, BLIP, {"image_size": 364}, None, SHOWN),
        (VLM, BLIP, {"name": "vlm_image", "shows": "crops"}, {"shows": "plain"},
         {**SHOWN, "shows": "plain"}),
        (VLM, {"name": "vlm_image", "shows": "mask"}, None, None, {**SHOWN, "shows": "mask"}),
    ],
)  # fmt: skip
def test_processors_of_the_model_take_the_place_of_others(arch, default, file, options, expected):
    def layer(node):
        return {"corpus": {} if node is None else {"vis_processor": {"eval": node}}}

    preprocess = {
        "vis_processor": {"train": SHOWN, "eval": SHOWN},
        "text_processor": {"train": {"name": "base"}, "eval": {"name": "base"}},
    }
    datasets = OmegaConf.merge(layer(default), layer(file), layer(options))
    use_own_processors(
        OmegaConf.create(preprocess),
        datasets,
        OmegaConf.create({"model": arch, "datasets": layer(file)}),
        OmegaConf.create({"model": VLM, "datasets": layer(options)}),
    )
    assert dict(datasets.corpus.vis_processor.eval) == expected
    assert datasets.corpus.vis_processor.train == SHOWN
    assert datasets.corpus.text_processor.eval == {"name": "base"}
