"""The demo Space in a browser, as somebody meets it: its page says what the detector says, and keeps nothing."""

# fixtures are imported by name
# ruff: noqa: F401, F811
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hiva_hf import ActionUnitDetector, default_checkpoint
from hiva_hf.facs import au_meaning
from hiva_hf.open_vocabulary import add_action_units

pytest.importorskip("gradio")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
from space_fixtures import FOLDER, JAW, OPEN_AUS, app, closed, faces, folder, opened, same_table, two

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


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


@contextmanager
def serving(port, tmp_path, checkpoint=None):
    """The page as the Space serves it, of a checkpoint or of the one of the package."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HIVA_CHECKPOINT"},
        **({} if checkpoint is None else {"HIVA_CHECKPOINT": str(checkpoint)}),
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


@pytest.fixture
def served(folder, port, tmp_path):
    with serving(port, tmp_path, folder / "closed") as served:
        yield served


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


def test_the_checkpoint_of_the_package_tells_intensities_on_a_desk_and_on_a_phone(browser, folder, port, tmp_path):
    detector = ActionUnitDetector(default_checkpoint())
    (face, _) = detector.image(folder / "two.png")
    with serving(port, tmp_path) as served:
        for name, size in (("desk", DESK), ("phone", PHONE)):
            page = open_page(browser, served.address, viewport=size)
            upload(page, folder / "two.png")
            bars = read_bars(page, "Face 0")
            same_bars(bars, face, detector.limits)
            levels = page.evaluate(
                """() => Object.fromEntries([...document.querySelectorAll('#bars .au')].map(row => {
                    const width = name => row.querySelector(name).getBoundingClientRect().width
                    const told = row.querySelector('.level').innerText
                    return [row.dataset.au, [told, width('.strength') / width('.track')]]
                }))"""
            )
            for label, intensity in face.intensities.items():
                number, length = levels[label]
                assert float(number) == pytest.approx(intensity, abs=0.0501)
                assert length == pytest.approx(intensity / 5, abs=0.01)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            # nothing is cut off or lies over its neighbour
            assert page.evaluate(
                """() => [...document.querySelectorAll('#bars .au')].every(row => {
                    const [track, number, level] = ['.track', '.number', '.level'].map(
                        name => row.querySelector(name).getBoundingClientRect())
                    return track.width > 60 && track.right <= number.left && number.right <= level.left
                        && level.right <= innerWidth
                })"""
            )
            assert "hiva_hf's own" in page.locator("#foot").inner_text()
            with page.expect_download() as download:
                page.locator("#table a").click()
            table = Path(download.value.path()).read_text()
            same_table(table, detector, detector.image(folder / "two.png"), "two.png")
            assert "AU12_r" in table
            page.wait_for_timeout(500)
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            page.close()
