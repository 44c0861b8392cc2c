"""Frames: by hand, there and back, and size for size what the installed image processors do."""

import math

import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lavis.common.errors import ConfigError, RecordError
from lavis.common.regions.conventions import convention_of
from lavis.common.regions.frames import Frame

SIZE = (1280, 853)
PINPOINTS = [[r * 384, c * 384] for r in range(1, 7) for c in range(1, 7)]


@st.composite
def sizes(draw, longest=1500):
    """Sizes of images with aspect ratios from 1:200 to 200:1, alike on a logarithmic scale."""
    long = draw(st.integers(1, longest))
    aspect = math.exp(draw(st.floats(0, math.log(200))))
    short = min(max(math.ceil(long / aspect), 1), long)
    return draw(st.sampled_from([(long, short), (short, long)]))


def processor(name, **options):
    """Return an image processor of transformers, of its class's settings and `options`."""
    found = getattr(transformers, name, None)
    if found is None:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return found(**options)


def white(size):
    return torch.full((3, size[1], size[0]), 255, dtype=torch.uint8)


def agree(family, image_processor, size, seen):
    """Assert that the table's frame is what the processor made of an image, or refused."""
    spoken = convention_of(family, image_processor.to_dict())
    try:
        frame = spoken.frame(size)
    except RecordError:
        with pytest.raises(ValueError):
            seen(image_processor, size)
        return
    model, place = seen(image_processor, size)
    assert model == frame.model and place in (None, frame.place), size


def by_grid(image_processor, size):
    made = image_processor(white(size), return_tensors="pt")
    rows, columns = made["image_grid_thw"][0, 1:].tolist()
    return (columns * image_processor.patch_size, rows * image_processor.patch_size), None


def by_positions(image_processor, size):
    made = image_processor(white(size), return_tensors="pt")
    columns, rows = (made["image_position_ids"][0].amax(dim=0) + 1).tolist()
    return (columns * image_processor.patch_size, rows * image_processor.patch_size), None


def by_pixels(image_processor, size):
    return tuple(
        image_processor(white(size), return_tensors="pt")["pixel_values"].shape[:1:-1]
    ), None


def by_rows_and_columns(image_processor, size):
    made = image_processor([[white(size)]], return_tensors="pt", return_row_col_info=True)
    tile = image_processor.max_image_size["longest_edge"]
    return (max(made["cols"][0][0], 1) * tile, max(made["rows"][0][0], 1) * tile), None


def by_content(tiles, rows, columns):
    """Return size of a canvas and the place of white on it, from its tiles (T, 3, S, S)."""
    edge = tiles.shape[-1]
    grid = tiles[:, 0].reshape(rows, columns, edge, edge).transpose(1, 2)
    canvas = grid.reshape(rows * edge, columns * edge)
    inside = canvas > canvas.min() + 1e-3 if canvas.min() < canvas.max() - 1e-3 else canvas < 1e9
    ys, xs = inside.any(dim=1).nonzero()[:, 0], inside.any(dim=0).nonzero()[:, 0]
    place = (xs[0].item(), ys[0].item(), xs[-1].item() + 1, ys[-1].item() + 1)
    return (columns * edge, rows * edge), place


def of_llava(image_processor, size):
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size[::-1], PINPOINTS)
    made = image_processor(white(size), return_tensors="pt")["pixel_values"][0]
    return by_content(made[1:], height // 384, width // 384)


def of_llama4(image_processor, size):
    made = image_processor(white(size), return_tensors="pt")
    rows, columns = made["aspect_ratios"][0].tolist()
    return by_content(made["pixel_values"][: rows * columns].float(), rows, columns)


def of_phi4(image_processor, size):
    black = torch.zeros(3, size[1], size[0], dtype=torch.uint8)  # padding is white
    made = image_processor(black, return_tensors="pt")
    rows, columns = (side // 448 for side in made["image_sizes"][0].tolist())
    return by_content(-made["image_pixel_values"][0, 1 : 1 + rows * columns], rows, columns)


def of_perception(image_processor, size):
    made, _ = image_processor.resize(white(size), tile_size=448, max_num_tiles=36)
    return tuple(made.shape[:0:-1]), None


def of_minicpm(image_processor, size):
    made = image_processor(white(size), return_tensors="pt")
    rows, columns = made["grids"][0]
    slices = made["target_sizes"][1:] if rows else made["target_sizes"]
    height, width = slices[0].tolist()
    patch = image_processor.patch_size
    return (width * patch * max(columns, 1), height * patch * max(rows, 1)), None


def of_got_ocr(image_processor, size):
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas(size[::-1], (448, 448), 1, 12)
    made = image_processor(white(size), return_tensors="pt")
    assert made["num_patches"][0] == columns * rows + (columns * rows > 1)
    return (columns * 448, rows * 448), None


def of_molmo2(image_processor, size):
    from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

    margins, crops = image_processor.overlap_margins, image_processor.max_crops
    geometry = compute_crop_geometry(
        size[1], size[0], crops, margins, 378, image_processor.patch_size
    )
    return geometry[:1:-1], None


QWEN25 = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}
QWEN3 = {
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    "patch_size": 16,
    "merge_size": 2,
}
SQUARE = {"size": {"height": 224, "width": 224}}
CASES = [
    # family, image processor, its options, how to see what it did, and of the worked picture
    ("qwen2_vl", "Qwen2VLImageProcessor", {}, by_grid, (1204, 812)),
    ("qwen2_5_vl", "Qwen2VLImageProcessor", QWEN25, by_grid, (1288, 840)),
    ("qwen2_5_vl", "Qwen2VLImageProcessorPil", {"max_pixels": 50176}, by_grid, (252, 168)),
    ("qwen3_vl", "Qwen2VLImageProcessor", QWEN3, by_grid, (1280, 864)),
    ("qwen3_5", "Qwen2VLImageProcessor", QWEN3, by_grid, (1280, 864)),
    ("glm4v", "Glm4vImageProcessor", {}, by_grid, (1288, 840)),
    ("glm46v", "Glm46VImageProcessor", {}, by_grid, (1288, 840)),
    ("paligemma", "SiglipImageProcessor", SQUARE, by_pixels, (224, 224)),
    (
        "gemma3",
        "Gemma3ImageProcessor",
        {"size": {"height": 896, "width": 896}},
        by_pixels,
        (896,) * 2,
    ),
    ("florence2", "CLIPImageProcessor", {**SQUARE, "do_center_crop": False}, by_pixels, (224, 224)),
    ("kosmos-2", "CLIPImageProcessor", {"use_square_size": True}, by_pixels, (224, 224)),
    ("gemma4", "Gemma4ImageProcessor", {}, by_positions, (960, 624)),
    ("gemma4", "Gemma4ImageProcessor", {"max_soft_tokens": 70}, by_positions, (480, 288)),
    ("gemma4", "Gemma4ImageProcessor", {"max_soft_tokens": 140}, by_positions, (672, 432)),
    ("gemma4", "Gemma4ImageProcessor", {"max_soft_tokens": 560}, by_positions, (1344, 912)),
    ("gemma4", "Gemma4ImageProcessor", {"max_soft_tokens": 1120}, by_positions, (1920, 1296)),
    (
        "internvl",
        "GotOcr2ImageProcessor",
        {"size": {"height": 448, "width": 448}, "crop_to_patches": True},
        of_got_ocr,
        (1344, 896),
    ),
    ("molmo2", "Molmo2ImageProcessor", {}, of_molmo2, (1176, 644)),
    ("molmo2", "Molmo2ImageProcessor", {"max_crops": 24}, of_molmo2, (1442, 910)),
    ("idefics3", "Idefics3ImageProcessor", {}, by_rows_and_columns, (1456, 1092)),
    (
        "smolvlm",
        "SmolVLMImageProcessor",
        {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
        by_rows_and_columns,
        (2048, 1536),
    ),
    ("llava_onevision", "LlavaOnevisionImageProcessor", {}, of_llava, (1536, 1152)),
    ("llama4", "Llama4ImageProcessor", {}, of_llama4, (1344, 1008)),
    ("llama4", "Llama4ImageProcessor", {"resize_to_max_canvas": True}, of_llama4, (1680, 1008)),
    ("perception_lm", "PerceptionLMImageProcessor", {}, of_perception, (3136, 2240)),
    ("phi4_multimodal", "Phi4MultimodalImageProcessor", {}, of_phi4, (1344, 896)),
    ("minicpmv4_6", "MiniCPMV4_6ImageProcessor", {}, of_minicpm, (1344, 896)),
]


FRAMES = [
    *((family, options) for family, _, options, *_ in CASES),
    ("kosmos-2", {}),
    ("internvl", {}),
    ("idefics3", {"do_image_splitting": False}),
]


@pytest.mark.parametrize(
    ("family", "name", "options", "seen", "worked"),
    CASES,
    ids=lambda v: getattr(v, "__name__", None) or str(v),
)
def test_frames_are_those_of_the_installed_processor(family, name, options, seen, worked):
    image_processor = processor(name, **options)
    assert convention_of(family, image_processor.to_dict()).frame(SIZE).model == worked

    @settings(max_examples=8 if worked[0] > 1300 else 25, deadline=None)
    @given(sizes())
    @example(SIZE)
    @example((1, 1))
    @example((448, 448))
    def check(size):
        agree(family, image_processor, size, seen)

    check()


def ramp(size):
    """Return an image whose red is the column and whose green is the row."""
    red = torch.arange(size[0], dtype=torch.float32).expand(size[1], -1)
    green = torch.arange(size[1], dtype=torch.float32)[:, None].expand(-1, size[0])
    return torch.stack([red, green, torch.zeros_like(red)])


@pytest.mark.parametrize("size", [(250, 166), (150, 230), (224, 224), (240, 100)])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("kosmos-2", "CLIPImageProcessor"),
        ("qwen2_vl", "Qwen2VLImageProcessor"),
        ("llava_onevision", "LlavaOnevisionImageProcessor"),
        ("llama4", "Llama4ImageProcessor"),
    ],
)
def test_pixels_lie_where_the_frame_says(family, name, size):
    """Colours tell the column and row of each pixel that the model sees."""
    options = {"do_rescale": False, "do_normalize": False}
    image_processor = processor(name, **options)
    made = image_processor(ramp(size), return_tensors="pt", **options)
    frame = convention_of(family, image_processor.to_dict()).frame(size)
    if family == "qwen2_vl":  # (rows of 2 x 2 patches, ..) to a picture
        columns, rows = (side // 14 for side in frame.model)
        patches = made["pixel_values"].reshape(rows // 2, columns // 2, 2, 2, 3, 2, 14, 14)
        seen = patches[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, *frame.model[::-1])
    elif family == "kosmos-2":
        seen = made["pixel_values"][0]
    else:
        edge = made["pixel_values"].shape[-1]
        columns, rows = (side // edge for side in frame.model)
        tiles = made["pixel_values"].reshape(-1, 3, edge, edge)
        tiles = tiles[:-1] if family == "llama4" and rows * columns > 1 else tiles
        tiles = tiles[1:] if family == "llava_onevision" else tiles
        seen = tiles.reshape(rows, columns, 3, edge, edge).permute(2, 0, 3, 1, 4)
        seen = seen.reshape(3, *frame.model[::-1])
    x1, y1, x2, y2 = frame.place
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = min(x2, frame.model[0]), min(y2, frame.model[1])
    for x in range(left + 3, right - 3, 7):
        for y in range(top + 3, bottom - 3, 7):
            column, row = frame.to_original((x + 0.5, y + 0.5))
            if 2 < column < size[0] - 2 and 2 < row < size[1] - 2:
                assert seen[0, y, x].item() == pytest.approx(column - 0.5, abs=0.6)
                assert seen[1, y, x].item() == pytest.approx(row - 0.5, abs=0.6)


@settings(max_examples=200, deadline=None)
@given(st.data(), sizes(), st.sampled_from(FRAMES))
def test_there_and_back(data, size, case):
    try:
        frame = convention_of(*case).frame(size)
    except RecordError:
        return
    point = data.draw(st.floats(0, size[0])), data.draw(st.floats(0, size[1]))
    back = frame.to_original(frame.to_model(point))
    assert back == pytest.approx(point, abs=1e-6 * max(size))
    left, top, right, bottom = frame.visible()
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_a_centre_crop_by_hand():
    frame = convention_of("kosmos-2", {}).frame(SIZE)
    assert frame == Frame(SIZE, (224, 224), (-56, 0, 280, 224))
    left, top, right, bottom = frame.visible()
    assert (left, right) == pytest.approx((213.33, 1066.67), abs=0.01)
    assert (top, bottom) == (0, 853)
    assert frame.to_model((213 + 1 / 3, 853)) == pytest.approx((0, 224))


def test_what_a_family_refuses_and_odd_configs():
    for family in ("qwen2_vl", "glm46v"):
        spoken = convention_of(family, {})
        assert spoken.frame((20, 4000)).model[0] == 28
        with pytest.raises(RecordError, match="narrower than 1:200"):
            spoken.frame((100, 20001))
    assert convention_of("qwen2_vl", {"do_resize": False}).frame((33, 77)).model == (33, 77)
    with pytest.raises(ConfigError, match="shortest_edge and longest_edge"):
        convention_of("qwen2_vl", {"size": {"shortest_edge": 3136}}).frame(SIZE)
    with pytest.raises(ConfigError, match="image processor of paligemma: 'width' is missing"):
        convention_of("paligemma", {"size": {"height": 224}}).frame(SIZE)
    # the older names of areas win over `size`, as in the processor
    options = {
        "min_pixels": 3136,
        "max_pixels": 50176,
        "size": {"longest_edge": 1, "shortest_edge": 1},
    }
    assert convention_of("qwen2_5_vl", options).frame(SIZE).model == (252, 168)
