"""The demo Space: what its page says is what the detector says, in a browser too."""

import base64
import importlib.util
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hiva_hf import ActionUnitDetector, hiva_small, hiva_small_text
from hiva_hf.facs import au_meaning
from hiva_hf.open_vocabulary import add_action_units
from hiva_hf.results import FaceResult
from hiva_hf.training import save_detector

gr = pytest.importorskip("gradio")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
FOLDER = Path(__file__).parents[1] / "hub_cards" / "space"
THRESHOLDS = {"AU1": 0.3, "AU4": 0.8}
JAW = "The mouth is stretched wide open."
OPEN_AUS = ["AU1", "AU4", "AU12"]
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", FOLDER / "app.py")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints, one of them open to other action units, and pictures with two faces, with none, and broken."""
    folder = tmp_path_factory.mktemp("space")
    torch.manual_seed(0)
    model, processor = hiva_small()
    processor.thresholds = THRESHOLDS
    save_detector(model, processor, folder / "closed")
    save_detector(*hiva_small_text(OPEN_AUS, au_projection="text"), folder / "open")
    astronaut = Image.fromarray(pytest.importorskip("skimage.data").astronaut())
    two = Image.new("RGB", (800, 512), "white")
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.crop((130, 0, 330, 250)).resize((160, 200)), (560, 150))
    two.save(folder / "two.png")
    Image.new("RGB", (300, 300), "gray").save(folder / "nobody.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def closed(folder):
    return ActionUnitDetector(folder / "closed", activation_maps=True)


@pytest.fixture(scope="module")
def opened(folder):
    return ActionUnitDetector(folder / "open", activation_maps=True)


@pytest.fixture(scope="module")
def faces(closed, folder):
    faces = closed.image(folder / "two.png")
    assert [face.face_id for face in faces] == [0, 1]
    assert any(abs(faces[0].scores[label] - faces[1].scores[label]) > 0.002 for label in closed.labels)
    return faces


@pytest.fixture(scope="module")
def two(folder):
    return Image.open(folder / "two.png").convert("RGB")


def picture_in(html):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", html)[1])))


def parts(page):
    """The components of a page by their names."""
    return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}


def same_table(text, detector, faces, name):
    """A CSV that is read back against the detector's own table; all but the file's name."""
    table, expected = pd.read_csv(io.StringIO(text)), detector.to_dataframe(faces)
    assert list(table) == list(expected)
    assert table["source"].tolist() == [name] * len(faces)
    for column in set(expected) - {"source"}:
        assert np.allclose(table[column], expected[column], rtol=1e-5, atol=1e-5), column


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
    assert len((FOLDER / "app.py").read_text().splitlines()) < 400


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
    page = app.build(closed)
    assert page.analytics_enabled is False
    assert page.delete_cache == app.DELETE_CACHE
    options = app.launch_options()
    assert options["run_history"] is options["enable_monitoring"] is False
    assert options["state_session_capacity"] == app.SESSIONS


def test_a_checkpoint_that_is_none(app, monkeypatch, tmp_path):
    monkeypatch.setenv("HIVA_CHECKPOINT", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match=r"^HIVA_CHECKPOINT must name the folder or Hub id of a HiVA checkpoint; got"):
        app.main()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def served(folder, port, tmp_path):
    """The page as the Space serves it."""
    environment = {
        **os.environ,
        "HIVA_CHECKPOINT": str(folder / "closed"),
        "GRADIO_TEMP_DIR": str(tmp_path / "cache"),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, FOLDER / "app.py"], stdout=file, stderr=file, env=environment)
    try:
        deadline = time.monotonic() + 120
        while "Running on" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield SimpleNamespace(address=f"http://127.0.0.1:{port}", log=log, cache=tmp_path / "cache")
    finally:
        server.terminate()
        server.wait(30)


def open_page(browser, address, asked=None, **options):
    page = browser.new_page(**options)
    if asked is not None:
        page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(30_000)
    page.goto(address)
    return page


def upload(page, path):
    page.locator("#picture input[type=file]").wait_for(state="attached")
    page.locator("#picture input[type=file]").set_input_files(path)


def read_bars(page, title):
    """By AU of the face that is shown: its name, number, length of the bar and place of the mark, as drawn."""
    page.get_by_role("heading", name=title, exact=True).wait_for()
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('#bars .au')].map(row => {
            const box = name => row.querySelector(name).getBoundingClientRect()
            const track = box('.track'), mark = box('.mark')
            return [row.dataset.au, {
                name: row.querySelector('.name').innerText.trim(), number: row.querySelector('.number').innerText,
                length: box('.fill').width / track.width, active: row.classList.contains('active'),
                mark: (mark.x + mark.width / 2 - track.x) / track.width,
            }]
        }))"""
    )


def same_bars(bars, face, limits):
    assert list(bars) == list(face.scores)
    for label, score in face.scores.items():
        bar = bars[label]
        assert bar["name"] == f"{label} {au_meaning(label)}"
        assert float(bar["number"]) == pytest.approx(score, abs=0.00501)
        # to a pixel or so
        assert bar["length"] == pytest.approx(score, abs=0.01)
        assert bar["mark"] == pytest.approx(limits[label], abs=0.01)
        assert bar["active"] == (score >= limits[label])


def test_the_page_in_a_browser(browser, served, folder, closed, faces):
    asked, failed = [], []
    page = open_page(browser, served.address, asked, viewport={"width": 1280, "height": 900})
    page.on("pageerror", lambda error: failed.append(error))
    upload(page, folder / "two.png")
    same_bars(read_bars(page, "Face 0"), faces[0], closed.limits)

    # a click on the other box
    shape = page.locator("#faces img").bounding_box()
    box = page.locator("#faces .box").nth(1).bounding_box()
    assert box["x"] - shape["x"] == pytest.approx(faces[1].box[0] / 800 * shape["width"], abs=2)
    assert box["width"] == pytest.approx((faces[1].box[2] - faces[1].box[0]) / 800 * shape["width"], abs=2)
    page.locator("#faces .box").nth(1).click()
    same_bars(read_bars(page, "Face 1"), faces[1], closed.limits)
    page.locator("#face-choice label").nth(0).click()
    read_bars(page, "Face 0")

    # the map of the strongest, then that of another one
    strongest = max(faces[0].scores, key=faces[0].scores.get)
    figure = page.locator(f"#map figure[data-au={strongest}] img")
    before = figure.get_attribute("src")
    other = next(label for label in closed.labels if label != strongest)
    page.locator("#label-choice").get_by_text(other, exact=True).click()
    figure = page.locator(f"#map figure[data-au={other}]")
    figure.wait_for()
    assert figure.locator("img").get_attribute("src") != before
    assert au_meaning(other) in figure.inner_text()

    with page.expect_download() as download:
        page.locator("#table a").click()
    assert download.value.suggested_filename == "action_units.csv"
    same_table(Path(download.value.path()).read_text(), closed, faces, "two.png")

    page.get_by_text("An action unit of your own").click()
    page.get_by_text("Off with this checkpoint").wait_for()
    assert page.locator("#own-ask").is_disabled()

    for name, said in (
        ("nobody.png", "No face was found in this picture"),
        ("broken.png", "cannot be read as a picture"),
    ):
        page.locator("#another").or_(page.get_by_label("Remove Image")).filter(visible=True).click()
        upload(page, folder / name)
        page.locator("#message").get_by_text(said).wait_for()
        assert not page.locator("#bars").is_visible()
    assert not failed
    assert all(url.startswith((served.address, "data:", "blob:")) for url in asked), asked
    # the uploads, and no file beside them
    assert {path.name for path in served.cache.rglob("*") if path.is_file()} == {"two.png", "nobody.png", "broken.png"}
    log = served.log.read_text()
    assert "Traceback" not in log
    assert "two.png" not in log
    page.close()

    page = open_page(browser, served.address, viewport=PHONE)
    upload(page, folder / "two.png")
    same_bars(read_bars(page, "Face 0"), faces[0], closed.limits)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.close()


def until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_action_unit_of_ones_own_and_what_is_left_behind(
    app, browser, folder, opened, two, port, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    monkeypatch.setattr(app, "DELETE_CACHE", (1, 20))
    served = app.build(opened, "name")
    served.launch(
        **app.launch_options(), server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True
    )
    try:
        page = open_page(browser, f"http://127.0.0.1:{port}")
        page.get_by_text("An action unit of your own").click()
        ask = page.locator("#own-ask")
        page.locator("#own-text textarea").fill(JAW)
        page.locator("#own-number").locator("input, textarea").fill("99")
        ask.click()
        page.locator("#own-message").get_by_text("99 is no action unit").wait_for()
        # asked for before there is a picture, and kept for the next one
        page.locator("#own-number").locator("input, textarea").fill("27")
        ask.click()
        page.locator("#own-message").get_by_text("AU27").wait_for()
        upload(page, folder / "two.png")
        bars = read_bars(page, "Face 0")
        detector = ActionUnitDetector(*add_action_units(opened.model, opened.processor, {"AU27": JAW}))
        scores = detector.image(two)[0].scores
        assert list(bars) == [*OPEN_AUS, "AU27"]
        assert all(bars[label]["length"] == pytest.approx(scores[label], abs=0.01) for label in scores)
        # and another one with the picture there
        page.locator("#own-number").locator("input, textarea").fill("18")
        ask.click()
        page.locator("#map figure[data-au=AU18]").wait_for()
        assert list(read_bars(page, "Face 0")) == [*OPEN_AUS, "AU27", "AU18"]
        page.locator("#own-forget").click()
        page.locator("#bars [data-au=AU27]").wait_for(state="detached")
        assert list(read_bars(page, "Face 0")) == OPEN_AUS
        # nor in the next picture
        page.locator("#another").click()
        page.locator("#bars").wait_for(state="hidden")
        upload(page, folder / "two.png")
        assert list(read_bars(page, "Face 0")) == OPEN_AUS

        sessions = served.state_holder.session_data
        assert [path.name for path in cache.rglob("*") if path.is_file()] == ["two.png"]
        assert len(sessions) == 1
        page.close()
        until(lambda: not sessions)
        until(lambda: not [path for path in cache.rglob("*") if path.is_file()])
    finally:
        served.close()
