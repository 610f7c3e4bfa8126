"""What is read in a picture that somebody gives, and what of it cannot be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from hiva_hf import ActionUnitDetector
from hiva_hf.detector import Picture
from hiva_hf.facs import ACTION_UNITS, au_label
from hiva_hf.image_processing_hiva import open_image
from hiva_hf.open_vocabulary import add_action_units
from hiva_hf.results import FaceResult


@dataclass
class Reading:
    """A picture and what was read in it.

    Args:
        image (`PIL.Image.Image`): Upright RGB.
        name (`str`): Of the file.
        faces (`list[FaceResult]`): Largest first; empty where there is none.
        limits (`dict[str, float]`): By AU the score from which it counts as active.
        intensity (`bool`): Whether scores are intensities 0-5 and not probabilities.
        table (`str`): CSV of all faces.
        own (`tuple[str, ...]`): Action units that were asked for by description.
    """

    image: Image.Image
    name: str
    faces: list[FaceResult]
    limits: dict[str, float]
    intensity: bool
    table: str
    own: tuple[str, ...] = ()


def read_picture(
    detector: ActionUnitDetector, image: Image.Image, name: str, own: Mapping[str, Sequence[str]] | None = None
) -> Reading:
    """All faces of a picture, with action units of one's own behind those of the checkpoint.

    Raises:
        ValueError: If the checkpoint cannot be asked for those.
    """
    if own:
        model, processor = add_action_units(detector.model, detector.processor, own)
        device = detector.model.device
        detector = ActionUnitDetector(model, processor, faces=detector.faces, device=device, activation_maps=True)
    results = detector.step([Picture(image, name)])
    table = detector.to_dataframe(results).to_csv(index=False, na_rep="NaN")
    faces = [result for result in results if result.success]
    return Reading(image, name, faces, detector.limits, detector.intensity, table, tuple(own or ()))


def open_upload(path: str) -> Image.Image:
    """The uploaded picture, or one plain sentence for who uploaded it."""
    try:
        return open_image(path)
    except (FileNotFoundError, ValueError):
        raise ValueError("This file cannot be read as a picture; please take a JPEG, PNG or WebP file.") from None


def checked_own(number: str, text: str, known: Sequence[str], most: int) -> tuple[str, list[str]]:
    """The label and the sentences of an action unit that somebody asks for.

    Raises:
        ValueError: If the number is no action unit or one that the checkpoint has, or there is no or too much text.
    """
    try:
        label = au_label(number)
    except ValueError:
        numbers = ", ".join(str(unit.number) for unit in ACTION_UNITS.values())
        raise ValueError(f"{number.strip() or 'Nothing'} is no action unit; please take one of {numbers}.") from None
    if label in known:
        raise ValueError(f"The checkpoint was trained on {label} itself; please take a number that is not shown above.")
    sentences = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(sentences) <= most:
        raise ValueError(f"Please describe {label} in 1 to {most} sentences, one a line; there are {len(sentences)}.")
    return label, sentences
