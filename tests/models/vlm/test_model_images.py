"""What a model sees of a ramp of colours is that ramp, whole or in tiles, for every family."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from lavis.common.multimodal import family_of
from lavis.models.vlm.inputs import PromptEncoder
from lavis.models.vlm.model_images import model_images

SIZE = (230, 170)  # width, height


def ramp(width, height):
    """Red grows to the right and green to the bottom, from 0 to 255."""
    across = torch.linspace(0, 255, width).expand(height, width)
    down = torch.linspace(0, 255, height)[:, None].expand(height, width)
    return torch.stack([across, down, torch.full((height, width), 90.0)]).round().to(torch.uint8)


def shown(folder, views):
    processor = AutoProcessor.from_pretrained(folder)
    encoder = PromptEncoder(processor, family_of(AutoConfig.from_pretrained(folder).model_type))
    encoded = encoder.encode(views, [encoder.write("hi", len(views))])
    return model_images(encoded.vision, processor.image_processor)


def test_the_whole_image_is_there_and_no_patch_is_out_of_place(vlm_folder, family):
    images = shown(vlm_folder(family), [ramp(*SIZE)])
    assert images and all(image.dtype == torch.uint8 for image in images)
    wholes = []
    for image in images:
        values = image.float().numpy()
        height, width = values.shape[1:]
        inner = (slice(None), slice(3, height - 3), slice(3, width - 3))
        steps = max(np.abs(np.diff(values, axis=axis)[inner]).max() for axis in (1, 2))
        smooth = 2 + 255 / min(height, width) * 1.5
        padded = not values.reshape(3, -1).any(axis=0).all()  # llava_next: black borders
        assert steps <= smooth or padded, steps
        across = np.linspace(0, 255, width)[None, :]
        down = np.linspace(0, 255, height)[:, None]
        error = max(np.abs(values[0] - across).max(), np.abs(values[1] - down).max())
        wholes.append(error <= 1.5 * 255 / min(height, width) + 3)
    crops = family in ("blip-2", "florence2", "kosmos-2", "llava")  # some cut the ends off
    assert any(wholes) or crops


def test_two_images_stand_in_order(vlm_folder):
    red, blue = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    red[0], blue[2] = 200, 220
    for family in ("qwen2_5_vl", "qwen3_vl", "gemma3"):
        images = shown(vlm_folder(family), [red, blue])
        colors = [image.float().mean(dim=(1, 2)).round().tolist() for image in images]
        assert colors == [[200, 0, 0], [0, 0, 220]], family


def test_the_size_is_that_of_the_processor(vlm_folder):
    folder = vlm_folder("qwen2_5_vl")
    (image,) = shown(folder, [ramp(*SIZE)])
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    limits = AutoProcessor.from_pretrained(folder).image_processor.size
    expected = smart_resize(SIZE[1], SIZE[0], 28, limits["shortest_edge"], limits["longest_edge"])
    assert tuple(image.shape[1:]) == expected


@pytest.mark.parametrize("vision", [{}, {"pixel_values": torch.zeros(2, 7, 9)}, {"x": 1}])
def test_an_unknown_form_gives_no_image(vision):
    class Processor:
        patch_size, do_normalize, do_rescale = 14, False, False

    assert model_images(vision, Processor()) == []
