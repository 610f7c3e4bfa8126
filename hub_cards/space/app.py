"""The demo page: the action units of every face of a picture, where each was seen, and others by description."""

import os
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import gradio as gr
from drawing import bars_html, faces_html, map_html, strongest, table_html
from PIL import Image
from reading import Reading, checked_own, open_upload, read_picture

from hiva_hf import ActionUnitDetector
from hiva_hf.default import chosen_checkpoint
from hiva_hf.hub import hub_sentence
from hiva_hf.open_vocabulary import add_action_units

FOLDER = Path(__file__).parent
# seconds: how often uploads are looked through, and the age from which they are deleted
DELETE_CACHE = (60, 300)
# pages whose pictures the memory holds at most; the one that waited longest gives way
SESSIONS = 20
# how the checkpoint that ships with the package is called here
OWN = "hiva_hf's own"
LOST = "This page no longer holds your picture; please give it again."


def words(name: str) -> str:
    """A text of the page, with the numbers that hold for it."""
    soonest, latest = DELETE_CACHE[1] // 60, sum(DELETE_CACHE) // 60
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return text.format(soonest=soonest, latest=latest, sessions=SESSIONS)


def message(sentence: str = "") -> dict:
    """One sentence about what went wrong, or nothing, which takes no room."""
    return gr.update(value=f'<p class="message" role="alert">{escape(sentence)}</p>', visible=bool(sentence))


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


def build(detector: ActionUnitDetector, checkpoint: str) -> gr.Blocks:
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
        except (OSError, ValueError) as error:
            return gr.skip(), message(str(hub_sentence(error) or error)), *[gr.skip()] * 10
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
    """Serve the page of the checkpoint that `HIVA_CHECKPOINT` names, or of the one that ships with the package."""
    checkpoint = os.environ.get("HIVA_CHECKPOINT", "the checkpoint of the package")
    try:
        checkpoint = chosen_checkpoint()
        detector = ActionUnitDetector(checkpoint, activation_maps=True)
    except (OSError, ValueError) as error:
        reason = hub_sentence(error) or error
        sys.exit(f"HIVA_CHECKPOINT must name the folder or Hub id of a HiVA checkpoint; got {checkpoint}. {reason}")
    # the place of a folder is nobody's business
    name = Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint
    build(detector, name if os.environ.get("HIVA_CHECKPOINT") else OWN).launch(**launch_options())


if __name__ == "__main__":
    main()
