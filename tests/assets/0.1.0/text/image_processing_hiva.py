"""Faces in, `pixel_values` out, in the two backends of transformers.

`HiVAImageProcessorPil` needs Pillow alone and works everywhere; `HiVAImageProcessor` needs torchvision. Both first
bring any picture to the same upright RGB with 8 bits a channel.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

_AUTO_MAP = {
    "AutoImageProcessor": ["image_processing_hiva.HiVAImageProcessorPil", "image_processing_hiva.HiVAImageProcessor"],
    "AutoProcessor": "processing_hiva.HiVAProcessor",
}


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring a picture to upright RGB: EXIF rotation applied, transparency on white, 16 bits and floats scaled to 8.

    Args:
        image (`PIL.Image.Image`): Of any mode.

    Returns:
        `PIL.Image.Image` of mode RGB.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to 255 and turn a 16-bit picture white
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """Scale to uint8 by the range of the type: 16-bit integers by 65535, floats in [0, 1] by 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.round(array / 257.0).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        top = 1.0 if np.nanmax(array, initial=0) <= 1 else 255.0 if array.max() <= 255 else 65535.0
    else:
        top = 65535.0 if array.max(initial=0) > 255 else 255.0
    return np.round(np.clip(np.nan_to_num(array), 0, top) * (255.0 / top)).astype(np.uint8)


def _in_unit_range(image: np.ndarray | torch.Tensor) -> bool:
    """Whether an array or tensor of floats is scaled to [0, 1] already."""
    if isinstance(image, torch.Tensor):
        return image.is_floating_point() and bool(image.max() <= 1)
    return bool(np.issubdtype(image.dtype, np.floating) and image.max() <= 1)


def _deeper_than_eight_bits(image: np.ndarray | torch.Tensor) -> bool:
    """Whether an array or tensor is of another range than 0 to 255 or, in floats, 0 to 1."""
    if isinstance(image, torch.Tensor):
        return image.dtype != torch.uint8 and (not image.is_floating_point() or bool(image.max() > 255))
    return image.dtype != np.uint8 and (not np.issubdtype(image.dtype, np.floating) or bool(image.max() > 255))


def open_image(path: str | Path) -> Image.Image:
    """Read a picture from a file as upright RGB.

    Args:
        path (`str` or `Path`): A file that Pillow can read.

    Returns:
        `PIL.Image.Image` of mode RGB.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty, damaged or no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be an image file; there is no file {path}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} must be an image; the file is empty.")
    try:
        with Image.open(path) as image:
            return upright_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} must be an image that Pillow can read; {error}.") from None


class _AnyPicture:
    """What both backends share: reading paths, and one form for every kind of picture."""

    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 224, "width": 224}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    face_template = None
    face_alignment = None
    _auto_class = "AutoImageProcessor"

    def to_dict(self):
        """`dict`: As in transformers, always with the full map, so that either backend can be chosen on loading."""
        return {**super().to_dict(), "auto_map": _AUTO_MAP}

    def fetch_images(self, image_url_or_urls):
        """Read what is given by path; leave what is a picture already."""
        given = image_url_or_urls
        if isinstance(given, (list, tuple)):
            return [self.fetch_images(item) for item in given]
        if isinstance(given, Path) or (
            isinstance(given, str) and not given.startswith(("http://", "https://", "data:"))
        ):
            return open_image(given)
        if isinstance(given, (np.ndarray, torch.Tensor)) and given.ndim == 2:
            return given[None]
        return super().fetch_images(given)

    def process_image(self, image, do_convert_rgb=None, input_data_format=None, **kwargs):
        """One picture to the backend's form, channels first."""
        if do_convert_rgb:
            if isinstance(image, Image.Image):
                image = upright_rgb(image)
            elif _deeper_than_eight_bits(image):
                tensor = isinstance(image, torch.Tensor)
                image = _eight_bits(image.cpu().numpy() if tensor else np.asarray(image))
                image = torch.from_numpy(image) if tensor else image
            elif kwargs.get("do_rescale") and _in_unit_range(image):
                image = image * 255
        return super().process_image(image, do_convert_rgb, input_data_format=input_data_format, **kwargs)


class HiVAImageProcessorPil(_AnyPicture, PilBackend):
    r"""Image processor of HiVA on Pillow and numpy.

    Resizes to `size`, scales to [0, 1] and normalises. Takes a `PIL.Image.Image`, numpy array, torch tensor or path, or
    a list of them; RGB, grey, RGBA, CMYK, palette and 16-bit pictures and those that EXIF says are rotated all end as
    the same upright RGB.

    Args:
        size (`dict[str, int]`, defaults to `{"height": 224, "width": 224}`): Size of `pixel_values`.
        resample (`PILImageResampling`, defaults to `BICUBIC`): Filter of the resize.
        image_mean, image_std (`list[float]`, defaults to those of ImageNet): Of each channel, on the scale [0, 1].
        do_resize, do_rescale, do_normalize, do_convert_rgb (`bool`, defaults to `True`): Which steps to take.
        face_template (`dict[str, list[float]]`, *optional*):
            Where eyes, nose and mouth corners lie in the crops of training, see [`FaceTemplate`]. Read
            by what finds and aligns faces; pictures given to the processor are taken as aligned already.
        face_alignment (`dict`, *optional*): How the faces of its training were cut out; told, and read by nothing.

    Raises:
        FileNotFoundError, ValueError: If a path is no picture.
    """


class HiVAImageProcessor(_AnyPicture, TorchvisionBackend):
    """Image processor of HiVA on torchvision, also on a GPU; arguments as those of [`HiVAImageProcessorPil`]."""


__all__ = ["HiVAImageProcessor", "HiVAImageProcessorPil", "open_image", "upright_rgb"]
