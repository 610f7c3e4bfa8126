"""A reading as parts of a page: faces with their boxes, bars, a map, and a table to download."""

import base64
from html import escape
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from PIL import Image
from reading import Reading

from hiva_hf.facs import au_meaning
from hiva_hf.plotting import enlarge

PICTURE_SIDE, MAP_SIDE = 1024, 336


def data_uri(image: Image.Image) -> str:
    """A picture as part of the page, so that no file of it is written."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
    """A bar an action unit, with its name, number and the mark of its threshold, and its intensity if told."""
    face = reading.faces[chosen]
    most = 5 if reading.intensity else 1
    rows = []
    for label, score in face.scores.items():
        limit = reading.limits[label]
        own = '<span class="own">yours, not calibrated</span>' if label in reading.own else ""
        level = face.intensities.get(label)
        strength = "" if level is None else f'<span class="strength" style="width:{level / 5:.2%}"></span>'
        told = "" if level is None else f'<span class="level">{level:.1f}</span>'
        mark = "" if reading.intensity else f'<span class="mark" style="left:{limit:.2%}"></span>'
        rows.append(
            f'<li class="au{" active" if score >= limit else ""}" data-au="{label}">'
            f'<span class="name"><b>{label}</b> {escape(au_meaning(label))} {own}</span>'
            f'<span class="track"><span class="fill" style="width:{score / most:.2%}"></span>{strength}{mark}</span>'
            f'<span class="number">{score:.{1 if reading.intensity else 2}f}</span>{told}</li>'
        )
    said = (
        "Intensity from 0 to 5. Orange: 2 or more."
        if reading.intensity
        else "Bar and first number: probability that the movement is there. Line: threshold. Orange: at or above it."
    )
    both = bool(face.intensities)
    if both:
        said += " Blue and last number: its intensity from 0 to 5."
    elif not reading.intensity:
        said += " It does not tell how strong the movement is."
    kind = "bars levels" if both else "bars"
    return f'<h3>Face {face.face_id}</h3><p class="note">{said}</p><ol class="{kind}">{"".join(rows)}</ol>'


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
