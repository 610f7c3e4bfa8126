"""The demo page: the action units of every face of a picture, where each was seen, and others by description."""

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

import gradio as gr
import numpy as np
from matplotlib import colormaps
from PIL import Image

from hiva_hf import ActionUnitDetector
from hiva_hf.detector import Picture
from hiva_hf.facs import ACTION_UNITS, au_label, au_meaning
from hiva_hf.hub import hub_sentence
from hiva_hf.image_processing_hiva import open_image
from hiva_hf.open_vocabulary import add_action_units
from hiva_hf.plotting import enlarge
from hiva_hf.results import FaceResult

FOLDER = Path(__file__).parent
CHECKPOINT = "org/hiva-small"
# seconds: how often uploads are looked through, and the age from which they are deleted
DELETE_CACHE = (60, 300)
# pages whose pictures the memory holds at most; the one that waited longest gives way
SESSIONS = 20
PICTURE_SIDE, MAP_SIDE = 1024, 336
LOST = "This page no longer holds your picture; please give it again."


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


def words(name: str) -> str:
    """A text of the page, with the numbers that hold for it."""
    soonest, latest = DELETE_CACHE[1] // 60, sum(DELETE_CACHE) // 60
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return text.format(soonest=soonest, latest=latest, sessions=SESSIONS)


def data_uri(image: Image.Image) -> str:
    """A picture as part of the page, so that no file of it is written."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def message(sentence: str = "") -> dict:
    """One sentence about what went wrong, or nothing, which takes no room."""
    return gr.update(value=f'<p class="message" role="alert">{escape(sentence)}</p>', visible=bool(sentence))


def faces_html(reading: Reading, chosen: int) -> str:
    """The picture with a numbered box around each face; a click on one chooses it."""
    shown = reading.image.copy()
    shown.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    width, height = reading.image.size
    boxes = []
    # the smallest last, so that a box within a box can be clicked
    for place, face in enumerate(reading.faces):
        x0, x1 = (min(max(x, 0), width) / width for x in face.box[::2])
        y0, y1 = (min(max(y, 0), height) / height for y in face.box[1::2])
        style = f"left:{x0:.2%};top:{y0:.2%};width:{x1 - x0:.2%};height:{y1 - y0:.2%}"
        # the number stands above its box where there is room
        state = f"box{' chosen' if place == chosen else ''}{' high' if y0 < 0.1 else ''}"
        click = f"document.querySelectorAll('#face-choice input')[{place}]?.click()"
        boxes.append(
            f'<button class="{state}" style="{style}" onclick="{click}" aria-label="face {face.face_id}">'
            f"<span>{face.face_id}</span></button>"
        )
    # the frame has the picture's shape, so that boxes in percent fit it at every width
    ratio = f"aspect-ratio:{width}/{height};max-width:calc(480px * {width / height:.3f})"
    image = f'<img src="{data_uri(shown)}" alt="The picture, with {len(boxes)} faces found">'
    return f'<div class="faces" style="{ratio}">{image}{"".join(boxes)}</div>'


def bars_html(reading: Reading, chosen: int) -> str:
    """A bar an action unit, with its name, its number and the mark of its threshold."""
    face = reading.faces[chosen]
    most = 5 if reading.intensity else 1
    rows = []
    for label, score in face.scores.items():
        limit = reading.limits[label]
        own = '<span class="own">yours, not calibrated</span>' if label in reading.own else ""
        mark = "" if reading.intensity else f'<span class="mark" style="left:{limit:.2%}"></span>'
        rows.append(
            f'<li class="au{" active" if score >= limit else ""}" data-au="{label}">'
            f'<span class="name"><b>{label}</b> {escape(au_meaning(label))} {own}</span>'
            f'<span class="track"><span class="fill" style="width:{score / most:.2%}"></span>{mark}</span>'
            f'<span class="number">{score:.{1 if reading.intensity else 2}f}</span></li>'
        )
    said = (
        "Intensity from 0 to 5. Orange: 2 or more."
        if reading.intensity
        else "Probability that the movement is there, not how strong it is. Line: threshold. Orange: at or above it."
    )
    return f'<h3>Face {face.face_id}</h3><p class="note">{said}</p><ol class="bars">{"".join(rows)}</ol>'


def map_html(reading: Reading, chosen: int, label: str) -> str:
    """Where the descriptions of an action unit attend, over the face as the model sees it."""
    face = reading.faces[chosen]
    if face.crop is None or face.activation_maps is None:
        return '<p class="note">This checkpoint has no maps: it was trained without the attention that gives them.</p>'
    values = face.activation_maps[list(face.scores).index(label)]
    values = enlarge(values, (MAP_SIDE, MAP_SIDE))
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    heat = Image.fromarray((colormaps["cividis"](values)[..., :3] * 255).astype(np.uint8))
    grey = face.crop.convert("L").convert("RGB").resize(heat.size, Image.Resampling.BICUBIC)
    name = escape(f"{label} {au_meaning(label)}".rstrip())
    return (
        f'<figure class="map" data-au="{label}"><img src="{data_uri(Image.blend(grey, heat, 0.6))}" '
        f'alt="Activation map of {name}"><div class="scale"><span>least</span><i></i><span>most</span></div>'
        f"<figcaption><b>{name}</b>: where its descriptions attend, on a scale of its own.</figcaption></figure>"
    )


def table_html(reading: Reading) -> str:
    """A link that holds the table itself, so that no file of it is written."""
    content = base64.b64encode(reading.table.encode()).decode()
    count = len(reading.faces)
    return (
        f'<a class="download" download="action_units.csv" href="data:text/csv;base64,{content}">'
        f"Download CSV ({count} {'face' if count == 1 else 'faces'})</a>"
    )


def strongest(reading: Reading, chosen: int) -> str:
    """The action unit with the highest score."""
    scores = reading.faces[chosen].scores
    return max(scores, key=scores.__getitem__)


def shown(reading: Reading, chosen: int = 0, label: str | None = None) -> tuple:
    """What the page shows of a face, in the order of `view`."""
    faces = [(f"face {face.face_id}", place) for place, face in enumerate(reading.faces)]
    labels = list(reading.faces[chosen].scores)
    label = label if label in labels else strongest(reading, chosen)
    return (
        gr.update(visible=False),
        gr.update(visible=True),
        faces_html(reading, chosen),
        gr.update(choices=faces, value=chosen, visible=len(faces) > 1),
        bars_html(reading, chosen),
        gr.update(choices=labels, value=label),
        map_html(reading, chosen, label),
        table_html(reading),
    )


def hidden() -> tuple:
    """As [`shown`], where there is nothing to show."""
    no_face = gr.update(choices=[], value=None, visible=False)
    return (gr.update(visible=True), gr.update(visible=False), "", no_face, "", gr.update(), "", "")


def build(detector: ActionUnitDetector, checkpoint: str = CHECKPOINT) -> gr.Blocks:
    """The page around a detector.

    Args:
        detector (`ActionUnitDetector`): One that returns activation maps.
        checkpoint (`str`): Its name, for the page.
    """
    config = detector.model.config

    def answer(image: Image.Image, name: str, own: dict) -> tuple:
        reading = read_picture(detector, image, name, own)
        if not reading.faces:
            sentence = "No face was found in this picture; please take one in which a face is seen from the front."
            return None, message(sentence), *hidden()
        return reading, message(), *shown(reading)

    def on_picture(path: str | None, own: dict) -> tuple:
        if path is None:
            return None, message(), *hidden()
        try:
            return answer(open_upload(path), Path(path).name, own)
        except ValueError as error:
            return None, message(str(error)), *hidden()

    def on_face(reading: Reading | None, chosen: int, label: str) -> tuple:
        if reading is None:
            return message(LOST), *hidden()
        return message(), *shown(reading, chosen, label)

    def on_label(reading: Reading | None, chosen: int | None, label: str) -> tuple:
        if reading is None:
            return message(LOST), gr.skip()
        return message(), map_html(reading, chosen or 0, label)

    def on_own(reading: Reading | None, own: dict, number: str, text: str) -> tuple:
        try:
            label, sentences = checked_own(number, text, config.au_names, config.num_descriptions)
            own = {**own, label: sentences}
            if reading is None:
                # what the model cannot read is told now, not at the next picture
                add_action_units(detector.model, detector.processor, own)
                return own, own_list(own), *[gr.skip()] * 10
            reading = read_picture(detector, reading.image, reading.name, own)
        except ValueError as error:
            return gr.skip(), message(str(error)), *[gr.skip()] * 10
        return own, own_list(own), reading, message(), *shown(reading, 0, label)

    def on_forget(reading: Reading | None) -> tuple:
        if reading is None:
            return {}, message(), *[gr.skip()] * 10
        return {}, message(), *answer(reading.image, reading.name, {})

    def on_close(request: gr.Request) -> None:
        # Gradio itself keeps what a closed page showed for an hour and longer
        page.state_holder.session_data.pop(request.session_hash, None)

    # without analytics: Gradio would report its use to its makers
    with gr.Blocks(title="Facial action units", analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        held, own = gr.State(), gr.State({})
        gr.Markdown(words("intro"), elem_id="intro")
        with gr.Column() as given:
            picture = gr.Image(
                label="Picture",
                type="filepath",
                sources=["upload", "webcam"],
                height=340,
                # a mirrored face would swap the sides of action units
                webcam_options=gr.WebcamOptions(mirror=False),
                buttons=[],
                elem_id="picture",
            )
            # opened by us and not by Gradio, which would say no more of a bad file than that there is an error; an
            # update of the picture itself would undo this, so the column around it is shown and hidden
            picture.preprocess = lambda payload: None if payload is None else payload.path
        told = gr.HTML(visible=False, elem_id="message")
        with gr.Row(visible=False, elem_id="results") as results:
            with gr.Column(scale=5, min_width=300):
                faces = gr.HTML(elem_id="faces")
                face = gr.Radio([], label="Face, the largest first", visible=False, elem_id="face-choice")
                another = gr.Button("Another picture", elem_id="another")
            with gr.Column(scale=6, min_width=300):
                bars = gr.HTML(elem_id="bars")
                table = gr.HTML(elem_id="table")
            with gr.Column(scale=4, min_width=280):
                label = gr.Radio([], label="Where did the model look for", elem_id="label-choice")
                where = gr.HTML(elem_id="map")
        with gr.Accordion("An action unit of your own", open=False, elem_id="own"):
            gr.Markdown(own_note(detector, checkpoint))
            on = {"interactive": config.open_vocabulary}
            with gr.Row():
                number = gr.Textbox(
                    label="Number", placeholder="27", max_length=8, scale=1, min_width=140, elem_id="own-number", **on
                )
                text = gr.Textbox(
                    label="What is seen, one sentence a line",
                    placeholder="The mouth is stretched wide open.",
                    lines=3,
                    max_length=2000,
                    scale=5,
                    min_width=280,
                    elem_id="own-text",
                    **on,
                )
            own_told = gr.HTML(visible=False, elem_id="own-message")
            with gr.Row():
                ask = gr.Button("Look for it", variant="primary", scale=0, min_width=150, elem_id="own-ask", **on)
                forget = gr.Button("Forget mine", scale=0, min_width=150, elem_id="own-forget", **on)
        with gr.Row(elem_id="said"):
            gr.Markdown(words("kept"))
            gr.Markdown(words("limits"))
        gr.Markdown(f"Checkpoint: `{checkpoint}`. Code: `hiva_hf`, Apache-2.0.", elem_id="foot")

        view = [given, results, faces, face, bars, label, where, table]
        # one at a time at the model, which two threads would only slow down
        model = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
        quick = {"show_progress": "hidden", "api_visibility": "private"}
        picture.change(on_picture, [picture, own], [held, told, *view], show_progress_on=[picture], **model)
        another.click(lambda: None, None, picture, **quick)
        face.input(on_face, [held, face, label], [told, *view], **quick)
        label.input(on_label, [held, face, label], [told, where], **quick)
        changed = [own, own_told, held, told, *view]
        ask.click(on_own, [held, own, number, text], changed, show_progress_on=[ask], **model)
        forget.click(on_forget, held, changed, show_progress_on=[forget], **model)
        page.unload(on_close)
    return page


def own_list(own: Mapping[str, Sequence[str]]) -> dict:
    """Which action units of one's own are read."""
    return gr.update(value=f'<p class="note">Yours, in every picture: {escape(", ".join(own))}.</p>', visible=True)


def own_note(detector: ActionUnitDetector, checkpoint: str) -> str:
    """What the field for other action units does, or why it is off."""
    if detector.model.config.open_vocabulary:
        return (
            "The model reads action units that it was never trained on from what you say of them. Such a score is not "
            "calibrated, and those of the others move a little, for action units give each other context."
        )
    return (
        f"**Off with this checkpoint.** `{checkpoint}` answers only for the {len(detector.labels)} action units that "
        "it was trained on; one that is trained with `hiva train --open-vocabulary` can be asked for others."
    )


def launch_options() -> dict:
    """How the page is served: nothing of it from other hosts, and no memory of runs."""
    return {
        "theme": gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        "css_paths": FOLDER / "style.css",
        "footer_links": ["gradio"],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "max_file_size": "20mb",
        "state_session_capacity": SESSIONS,
    }


def main() -> None:
    """Serve the page of the checkpoint that `HIVA_CHECKPOINT` names."""
    checkpoint = os.environ.get("HIVA_CHECKPOINT") or CHECKPOINT
    try:
        detector = ActionUnitDetector(checkpoint, activation_maps=True)
    except (OSError, ValueError) as error:
        reason = hub_sentence(error) or error
        sys.exit(f"HIVA_CHECKPOINT must name the folder or Hub id of a HiVA checkpoint; got {checkpoint}. {reason}")
    # the place of a folder is nobody's business
    build(detector, Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint).launch(**launch_options())


if __name__ == "__main__":
    main()
