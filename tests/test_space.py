"""The demo Space: what its page says is what the detector says."""

# fixtures are imported by name
# ruff: noqa: F401, F811
import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hiva_hf import ActionUnitDetector
from hiva_hf.open_vocabulary import add_action_units
from hiva_hf.results import FaceResult

pytest.importorskip("gradio")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
from space_fixtures import FOLDER, JAW, OPEN_AUS, app, closed, faces, folder, opened, same_table, two


def picture_in(html):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", html)[1])))


def parts(page):
    """The components of a page by their names."""
    return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}


def test_the_card_is_one(app):
    card = pytest.importorskip("huggingface_hub").SpaceCard.load(FOLDER / "README.md")
    data = card.data.to_dict()
    assert (data["sdk"], data["license"]) == ("gradio", "apache-2.0")
    assert (FOLDER / data["app_file"]).is_file()
    # a placeholder would be sent as it is
    assert "models" not in data
    assert len(data["short_description"]) <= 60
    assert f"gradio=={data['sdk_version']}" in (FOLDER / "requirements.txt").read_text().split()
    soonest, latest = app.DELETE_CACHE[1] // 60, sum(app.DELETE_CACHE) // 60
    for text in (card.text, app.words("kept")):
        assert f"{soonest} to {latest}" in " ".join(text.split())
        assert str(app.SESSIONS) in text
    for text in (card.text, app.words("intro") + app.words("limits")):
        assert all(word in text for word in ("agreed", "emotion", "skin tone", "rendered faces"))


def test_a_reading_is_the_detectors(app, closed, faces, two):
    reading = app.read_picture(closed, two, "two.png")
    assert [face.scores for face in reading.faces] == [face.scores for face in faces]
    assert reading.limits["AU1"] == 0.3
    same_table(reading.table, closed, faces, "two.png")
    # not a digit is lost
    assert pd.read_csv(io.StringIO(reading.table))["AU12_p"].tolist() == [face.scores["AU12"] for face in faces]


def reading_of(app, scores, **fields):
    maps = np.zeros((len(scores), 7, 7), np.float32)
    maps[-1, 1, 5] = 1.0
    crop = Image.new("RGB", (112, 112), "gray")
    face = FaceResult(
        "x", 0, 0.0, 0, True, 1.0, [20.0, 5.0, 60.0, 45.0], scores=scores, crop=crop, activation_maps=maps
    )
    other = FaceResult("x", 0, 0.0, 1, True, 1.0, [-10.0, 50.0, 30.0, 110.0], scores=scores)
    image = Image.new("RGB", (200, 100))
    limits = dict.fromkeys(scores, 0.4)
    return app.Reading(image, "x", [face, other], **{"limits": limits, "intensity": False, "table": "", **fields})


def test_bars(app):
    html = app.bars_html(reading_of(app, {"AU1": 0.4, "AU12": 0.399}, own=("AU12",)), 0)
    first, second = html.split("<li")[1:]
    assert all(part in first for part in (' active"', "<b>AU1</b> inner brow raiser", "width:40.00%", ">0.40<"))
    assert all(part in second for part in ("lip corner puller", "width:39.90%", "left:40.00%", "not calibrated"))
    assert "active" not in second
    assert "not calibrated" not in first
    html = app.bars_html(reading_of(app, {"AU1": 2.5}, intensity=True, limits={"AU1": 2.0}), 0)
    assert "width:50.00%" in html
    assert ">2.5<" in html
    assert "mark" not in html


def test_intensities_stand_beside_probabilities_where_they_are_told(app):
    reading = reading_of(app, {"AU1": 0.4})
    assert 'class="level"' not in app.bars_html(reading, 0)
    assert "does not tell how strong" in app.bars_html(reading, 0)
    reading.faces[0].intensities = {"AU1": 2.0}
    html = app.bars_html(reading, 0)
    assert all(part in html for part in ('class="strength" style="width:40.00%"', '<span class="level">2.0</span>'))
    assert "does not tell how strong" not in html


def test_boxes(app):
    html = app.faces_html(reading_of(app, {"AU1": 0.4}), 1)
    first, second = html.split("<button")[1:]
    assert "left:10.00%;top:5.00%;width:20.00%;height:40.00%" in first
    assert ("chosen" in first, "chosen" in second) == (False, True)
    assert "<span>1</span>" in second
    # what is not in the picture is cut off
    assert "left:0.00%;top:50.00%;width:15.00%;height:50.00%" in second


def test_a_map_is_bright_where_it_is_high(app):
    reading = reading_of(app, {"AU1": 0.4, "AU12": 0.5})
    image = picture_in(app.map_html(reading, 0, "AU12"))
    side = image.width / 7
    place = [(round((column + 0.5) * side), round((row + 0.5) * side)) for row, column in ((1, 5), (5, 1))]
    bright, dark = (np.array(image.getpixel(xy), float) for xy in place)
    assert bright.sum() - dark.sum() > 150
    assert picture_in(app.map_html(reading, 0, "AU1")).getpixel(place[0])[0] < bright[0] - 50
    assert "has no maps" in app.map_html(reading, 1, "AU12")


def test_action_units_by_description(app, opened, two):
    label, sentences = app.checked_own("au27", f"{JAW}\n\n  Teeth are seen. ", opened.labels, 8)
    assert (label, sentences) == ("AU27", [JAW, "Teeth are seen."])
    reading = app.read_picture(opened, two, "two.png", {label: sentences})
    detector = ActionUnitDetector(*add_action_units(opened.model, opened.processor, {label: sentences}))
    expected = detector.image(two)
    assert [face.scores for face in reading.faces] == [face.scores for face in expected]
    assert list(reading.faces[0].scores) == [*OPEN_AUS, "AU27"]
    assert "AU27_p" in reading.table
    assert 'data-au="AU27"' in app.map_html(reading, 0, "AU27")


@pytest.mark.parametrize(
    ("number", "text", "said"),
    [
        ("99", JAW, "99 is no action unit; please take one of 1, 2, 4, 5,"),
        (" ", JAW, "Nothing is no action unit"),
        ("12", JAW, "trained on AU12 itself"),
        ("27", " \n ", "in 1 to 8 sentences, one a line; there are 0"),
        ("27", "x\n" * 9, "there are 9"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(app, number, text, said):
    with pytest.raises(ValueError, match=said) as error:
        app.checked_own(number, text, OPEN_AUS, 8)
    assert re.fullmatch(r"[A-Z0-9][^.]*\.", str(error.value))


@pytest.mark.parametrize("name", ["broken.png", "empty.png", "absent.png"])
def test_a_bad_picture_is_one_sentence(app, folder, name):
    (folder / "empty.png").touch()
    with pytest.raises(
        ValueError, match=r"^This file cannot be read as a picture; please take a JPEG, PNG or WebP file.$"
    ):
        app.open_upload(str(folder / name))


def test_what_users_write_is_no_html(app):
    assert "<i>" not in app.message("<i>")["value"]
    assert "<i>" not in app.own_list({"<i>": []})["value"]
    assert app.message()["visible"] is False


def test_the_field_is_off_with_its_reason(app, closed, opened):
    for detector, on in ((closed, False), (opened, True)):
        page = parts(app.build(detector, "name"))
        for name in ("own-number", "own-text", "own-ask", "own-forget"):
            assert page[name].interactive is on
        note = app.own_note(detector, "name")
        assert ("Off with this checkpoint" in note) is not on
    assert "`name` answers only for the 12 action units" in app.own_note(closed, "name")


def test_nothing_is_recorded(app, closed, monkeypatch):
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    page = app.build(closed, "name")
    assert page.analytics_enabled is False
    assert page.delete_cache == app.DELETE_CACHE
    options = app.launch_options()
    assert options["run_history"] is options["enable_monitoring"] is False
    assert options["state_session_capacity"] == app.SESSIONS


def test_a_checkpoint_that_is_none(app, monkeypatch, tmp_path):
    monkeypatch.setenv("HIVA_CHECKPOINT", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match=r"^HIVA_CHECKPOINT must name the folder or Hub id of a HiVA checkpoint; got"):
        app.main()
