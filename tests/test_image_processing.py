"""The image processor: any picture to the same upright RGB, its values, its errors, saving and loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.utils import is_torchvision_available

import hiva_hf
from hiva_hf.image_processing_hiva import HiVAImageProcessor, HiVAImageProcessorPil, open_image, upright_rgb

HEIGHT, WIDTH = 16, 12
ROWS, COLUMNS = 20, 24
UPRIGHT = {
    # EXIF orientation: what a camera did to the upright picture before it stored it
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


@pytest.fixture
def image_processor():
    return HiVAImageProcessorPil(size={"height": HEIGHT, "width": WIDTH})


@pytest.fixture(scope="module")
def colour():
    return np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(1).integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)


@pytest.fixture(scope="module")
def png(colour, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "face.png"
    Image.fromarray(colour).save(path)
    return path


def pixels(image_processor, picture, **kwargs):
    return image_processor(picture, return_tensors="pt", **kwargs)["pixel_values"]


def channels_first(array):
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def three_of(grey):
    return Image.fromarray(np.stack([grey] * 3, axis=-1))


FORMS = {
    "pil": lambda array, path: Image.fromarray(array),
    "numpy-hwc": lambda array, path: array,
    "numpy-chw": lambda array, path: channels_first(array),
    "torch-chw": lambda array, path: torch.from_numpy(channels_first(array)),
    "str": lambda array, path: str(path),
    "path": lambda array, path: path,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_the_same_pixels(image_processor, colour, png, form):
    expected = pixels(image_processor, Image.fromarray(colour))
    picture = FORMS[form](colour, png)
    single, pair = pixels(image_processor, picture), pixels(image_processor, [picture, picture])
    assert single.shape == (1, 3, HEIGHT, WIDTH)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(pair, expected.repeat(2, 1, 1, 1), rtol=0, atol=1e-6)


def test_a_list_may_mix_forms(image_processor, colour, png):
    expected = pixels(image_processor, Image.fromarray(colour))
    mixed = pixels(image_processor, [Image.fromarray(colour), png, str(png)])
    torch.testing.assert_close(mixed, expected.repeat(3, 1, 1, 1), rtol=0, atol=1e-6)


def test_values_are_the_resized_picture_normalised(image_processor, colour):
    resized = Image.fromarray(colour).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((np.asarray(resized) / 255 - mean) / std).transpose(2, 0, 1)
    found = pixels(image_processor, colour)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_steps_and_numbers_can_be_chosen(colour):
    plain = HiVAImageProcessorPil(
        size={"height": 8, "width": 8}, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5], do_resize=False
    )
    found = pixels(plain, colour)
    assert found.shape == (1, 3, ROWS, COLUMNS)
    np.testing.assert_allclose(found[0].numpy(), channels_first(colour) / 127.5 - 1, rtol=0, atol=1e-5)
    raw = pixels(plain, colour, do_normalize=False, do_rescale=False)
    np.testing.assert_array_equal(raw[0].numpy(), channels_first(colour))


def test_default_size_is_224():
    assert pixels(HiVAImageProcessorPil(), Image.new("RGB", (30, 40))).shape == (1, 3, 224, 224)


def grey_forms(grey):
    picture, opaque = Image.fromarray(grey), Image.new("L", (COLUMNS, ROWS), 255)
    sixteen = grey.astype(np.uint16) * 257
    return {
        "L": picture,
        "LA": Image.merge("LA", [picture, opaque]),
        "hw1": grey[..., None],
        "1hw": grey[None],
        "RGBA": Image.merge("RGBA", [picture, picture, picture, opaque]),
        "CMYK": three_of(grey).convert("CMYK"),
        "P": picture.convert("P"),
        "I;16": Image.fromarray(sixteen),
        "I": Image.fromarray(sixteen.astype(np.int32)),
        "F": Image.fromarray((grey / 255).astype(np.float32)),
        "uint16-array": np.stack([sixteen] * 3, axis=-1),
        "int32-array": np.stack([sixteen.astype(np.int32)] * 3, axis=-1),
        "int64-array": np.stack([grey.astype(np.int64)] * 3, axis=-1),
        "float-array-16-bit": np.stack([sixteen.astype(np.float32)] * 3, axis=-1),
        "float-tensor-16-bit": torch.from_numpy(np.stack([sixteen.astype(np.float32)] * 3)),
    }


@pytest.mark.parametrize("form", grey_forms(np.zeros((ROWS, COLUMNS), np.uint8)))
def test_every_mode_of_a_grey_picture_gives_the_same_pixels(image_processor, grey, form):
    expected = pixels(image_processor, three_of(grey))
    torch.testing.assert_close(pixels(image_processor, grey_forms(grey)[form]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("convert", [lambda array: array, torch.from_numpy], ids=["numpy", "torch"])
def test_a_grey_array_of_two_dimensions_is_a_picture(image_processor, grey, convert):
    expected = pixels(image_processor, three_of(grey))
    torch.testing.assert_close(pixels(image_processor, convert(grey)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("convert", [lambda array: array, torch.from_numpy], ids=["numpy", "torch"])
def test_masks_are_black_and_white(image_processor, grey, convert):
    mask = np.stack([grey > 100] * 3)
    expected = pixels(image_processor, three_of(mask[0].astype(np.uint8) * 255))
    torch.testing.assert_close(pixels(image_processor, convert(mask)), expected, rtol=0, atol=1e-5)


def test_one_bit_pictures_are_black_and_white():
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert upright_rgb(picture).tobytes() == bytes([0, 0, 0, 255, 255, 255])


def test_transparency_stands_on_white():
    clear, half = (10, 20, 30, 0), (0, 0, 0, 128)
    picture = Image.new("RGBA", (3, 1), (10, 20, 30, 255))
    picture.putpixel((1, 0), clear)
    picture.putpixel((2, 0), half)
    found = np.asarray(upright_rgb(picture))[0]
    assert found[0].tolist() == [10, 20, 30]
    assert found[1].tolist() == [255, 255, 255]
    assert np.abs(found[2].astype(int) - 127).max() <= 1


def test_grey_with_alpha_stands_on_white():
    picture = Image.merge("LA", [Image.new("L", (1, 1), 40), Image.new("L", (1, 1), 0)])
    assert upright_rgb(picture).getpixel((0, 0)) == (255, 255, 255)


def test_the_transparent_colour_of_a_palette_turns_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "palette.png", transparency=0)
    assert Image.open(tmp_path / "palette.png").mode == "P"
    found = open_image(tmp_path / "palette.png")
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 200)]


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, ending):
    values = np.array([[0, 257, 30000, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep{ending}"
    Image.fromarray(values).save(path)
    found = np.asarray(open_image(path))[0]
    assert found[:, 0].tolist() == [0, 1, round(30000 / 257), 255]
    assert (found == found[:, :1]).all()


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    values = np.array([[0, 200]], dtype=np.uint16)
    assert np.asarray(upright_rgb(Image.fromarray(values))).max() <= 1


def test_float_arrays_need_no_rescaling(image_processor, colour):
    # on the picture's own size, so that both are exact
    still = {"do_resize": False}
    expected = pixels(image_processor, colour, **still)
    found = pixels(image_processor, (colour / 255).astype(np.float32), do_rescale=False, **still)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(pixels(image_processor, colour.astype(np.float32), **still), expected, rtol=0, atol=1e-5)


def test_float_arrays_in_zero_to_one_are_the_same_picture(image_processor, colour):
    expected = pixels(image_processor, colour)
    found = pixels(image_processor, (colour / 255).astype(np.float32))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_rotated_picture_ends_upright(tmp_path, colour, orientation):
    upright = Image.fromarray(colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "camera.png"
    UPRIGHT[orientation](upright).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(open_image(path)), colour)
    np.testing.assert_array_equal(np.asarray(upright_rgb(Image.open(path))), colour)


def missing_file(folder):
    return folder / "missing.png"


def empty_file(folder):
    path = folder / "empty.png"
    path.touch()
    return path


def text_file(folder):
    path = folder / "text.png"
    path.write_text("This is no picture.")
    return path


def half_of(ending, **save):
    def write(folder):
        path = folder / f"half{ending}"
        noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, **save)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return write


BAD_FILES = {
    "missing": (missing_file, FileNotFoundError, "there is no file"),
    "folder": (lambda folder: folder, FileNotFoundError, "there is no file"),
    "empty": (empty_file, ValueError, "the file is empty"),
    "text": (text_file, ValueError, "cannot identify"),
    "half-jpeg": (half_of(".jpg"), ValueError, "truncated"),
    "half-png": (half_of(".png"), ValueError, "must be an image"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("form", [str, Path])
def test_a_bad_file_gives_one_sentence_that_names_it(image_processor, tmp_path, kind, form):
    write, error, why = BAD_FILES[kind]
    path = write(tmp_path)
    with pytest.raises(error) as caught:
        image_processor(form(path))
    message = str(caught.value)
    assert str(path) in message
    assert why in message
    assert "\n" not in message
    # the way through Pillow is of no use to the reader
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_damaged_header_names_the_file(tmp_path):
    path = tmp_path / "header.ppm"
    path.write_bytes(b"P6\n2x 2\n255\n" + bytes(12))
    with pytest.raises(ValueError, match="must be an image") as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_pixels_are_in_memory_when_a_file_was_read(tmp_path, colour):
    path = tmp_path / "face.png"
    Image.fromarray(colour).save(path)
    picture = open_image(path)
    path.unlink()
    np.testing.assert_array_equal(np.asarray(picture), colour)


def test_save_and_load_through_the_auto_class(tmp_path, colour):
    image_processor = HiVAImageProcessorPil(size={"height": HEIGHT, "width": WIDTH}, image_mean=[0.1, 0.2, 0.3])
    image_processor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["image_processor_type"] == "HiVAImageProcessor"
    assert stored["auto_map"]["AutoImageProcessor"] == [
        "image_processing_hiva.HiVAImageProcessorPil",
        "image_processing_hiva.HiVAImageProcessor",
    ]
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is hiva_hf.HiVAImageProcessor
    assert loaded.to_dict() == image_processor.to_dict()
    if not is_torchvision_available():
        torch.testing.assert_close(pixels(loaded, colour), pixels(image_processor, colour), rtol=0, atol=0)


def test_saving_twice_writes_the_same_file(tmp_path, image_processor):
    image_processor.save_pretrained(tmp_path / "first")
    HiVAImageProcessorPil.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / name / "preprocessor_config.json").read_text() for name in ("first", "second"))
    assert first == second


def test_the_name_means_the_backend_that_works_here():
    expected = HiVAImageProcessor if is_torchvision_available() else HiVAImageProcessorPil
    assert hiva_hf.HiVAImageProcessor is expected
    assert hiva_hf.HiVAImageProcessorPil is HiVAImageProcessorPil
