"""Wide samples are scaled by their range, or refused; ordinary modes are as they always were."""

import io

import numpy as np
import pytest
from PIL import Image, features

from lavis.common.errors import DataError, RecordError
from lavis.common.pixels import PixelError, is_image, to_rgb
from lavis.datasets.files.images import ImageFile, decode_image, image_size
from lavis.generators.image_files import decode

RAMP = (np.arange(256, dtype=np.uint32).reshape(16, 16) * 257).astype(np.uint16)  # 0 to 65535
EIGHT = np.arange(256, dtype=np.uint8).reshape(16, 16)


def stored(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def channel(image):
    values = np.asarray(image)
    assert image.mode == "RGB" and (values == values[..., :1]).all()
    return values[..., 0]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_by_their_range(form):
    assert (channel(to_rgb(stored(Image.fromarray(RAMP), form))) == EIGHT).all()
    between = np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)  # thirds of 257 round
    found = channel(to_rgb(stored(Image.fromarray(between), form)))
    assert found.tolist() == [[0, 0, 1, 254, 255, 255]]


def test_big_endian_and_twelve_bits_have_their_own_range():
    big = Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes())
    assert (channel(to_rgb(big)) == EIGHT).all()
    twelve = stored(Image.fromarray(RAMP // 16), "TIFF")
    twelve.load()
    twelve.tag_v2[258] = (12,)
    assert (channel(to_rgb(twelve)) == EIGHT).all()


def test_white_may_be_zero():
    turned = stored(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
    assert (channel(to_rgb(turned)) == EIGHT[::-1, ::-1]).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_need_a_stated_range(kind, tmp_path):
    values = (RAMP / 65535).astype(kind) if kind is np.float32 else RAMP.astype(kind)
    top = float(values.max())
    unknown = stored(Image.fromarray(values), "TIFF")
    with pytest.raises(PixelError, match="the file does not say which value is white"):
        to_rgb(unknown)
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[280], tags[281] = 0, 1
    if kind is np.float32:
        tags[340], tags[341] = 0.0, top
        assert (
            channel(to_rgb(stored(Image.fromarray(values), "TIFF", tiffinfo=tags))) == EIGHT
        ).all()
    path = tmp_path / "wide.tif"
    Image.fromarray(values).save(path)
    file = ImageFile("wide.tif", str(path), path.stat().st_size, 0)
    with pytest.raises(RecordError, match=r"broken image: wide\.tif: mode .: samples of 32 bits"):
        decode_image(file, 10**6)
    with pytest.raises(DataError, match=r"wide\.tif: cannot be read as an image: mode"):
        decode(path.read_bytes(), "wide.tif")


def test_values_that_are_no_numbers_are_refused():
    values = np.full((2, 2), np.nan, np.float32)
    image = stored(Image.fromarray(values), "TIFF", tiffinfo={340: 0.0, 341: 1.0})
    with pytest.raises(PixelError):
        to_rgb(image)


def ordinary():
    """Return name -> image of a mode whose pixels Pillow has always given."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 9, 4), np.uint8)
    rgba = Image.fromarray(noise)
    palette = rgba.convert("RGB").quantize(8)
    palette.info["transparency"] = 1
    return {
        "1": Image.fromarray(noise[..., 0]).convert("1"),
        "L": Image.fromarray(noise[..., 0]),
        "LA": Image.merge("LA", rgba.split()[:2]),
        "P": palette,
        "RGB": rgba.convert("RGB"),
        "RGBA": rgba,
        "CMYK": rgba.convert("RGB").convert("CMYK"),
        "YCbCr": rgba.convert("RGB").convert("YCbCr"),
    }


@pytest.mark.parametrize("mode", list(ordinary()))
def test_ordinary_modes_are_converted_as_ever(mode):
    image = ordinary()[mode]
    before = image.convert("RGB")
    found = to_rgb(image)
    assert found.tobytes() == before.tobytes() and found.mode == "RGB"
    assert found.info == {}  # a colour that is see-through would be lost under a drawn region


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    animated = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert animated.n_frames == 2
    assert to_rgb(animated).getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_cut_image_is_refused(tmp_path, form):
    if form == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow without WebP")
    path = tmp_path / "cut"
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(path, form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordError, match="broken image: cut"):
        decode_image(ImageFile("cut", str(path), 0, 0), 10**6)


def test_the_size_of_the_header_is_that_of_the_pixels(tmp_path):
    for form in ("JPEG", "PNG", "TIFF"):
        path = tmp_path / form
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (6, 4)).save(path, form, exif=exif)
        file = ImageFile(form, str(path), path.stat().st_size, 0)
        assert image_size(file, 100) == decode_image(file, 100).size


def test_names_of_images():
    assert all(map(is_image, ["a.JPG", "b.tiff", "c.d.webp"]))
    assert not any(map(is_image, ["._a.jpg", "a.txt", "jpg", ".jpg"]))
