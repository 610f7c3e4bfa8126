"""Pictures of a prediction: what is drawn, and files that are whole or not there."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hiva_hf import ActionUnitDetector, hiva_small
from hiva_hf.faces import WholePicture
from hiva_hf.plotting import plot_prediction, save_figure

SCORES = {"AU1": 0.9, "AU4": 0.2, "AU12": 0.6, "AU99": 0.4}
BOX = (10.0, 12.0, 40.0, 42.0)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def maps():
    maps = np.zeros((len(SCORES), 7, 7), dtype=np.float32)
    for index in range(len(SCORES)):
        maps[index, index + 1, 5 - index] = 1.0
    return maps


def draw(picture, **options):
    return plot_prediction(picture, SCORES, picture.resize((32, 32)), **options)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("with_maps", [True, False], ids=["maps", "no-maps"])
@pytest.mark.parametrize("box", [BOX, None], ids=["box", "no-box"])
def test_a_prediction_becomes_a_readable_file(tmp_path, picture, maps, with_maps, box):
    figure = draw(picture, maps=maps if with_maps else None, box=box, title="one face")
    path = save_figure(figure, tmp_path / "above" / "face.png")
    assert path == tmp_path / "above" / "face.png"
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 1000 <= image.width <= 2400
        assert 0.3 < image.height / image.width < (1 if with_maps else 0.6)
        # a blank page has one colour
        assert len(image.convert("RGB").getcolors(maxcolors=image.width * image.height)) > 100
    assert [file.name for file in path.parent.iterdir()] == ["face.png"]


def test_bars_show_every_score_in_order(picture):
    bars = draw(picture).axes[1]
    assert [bar.get_width() for bar in bars.patches] == list(SCORES.values())
    assert [label.get_text() for label in bars.get_yticklabels()] == [
        "AU1  inner brow raiser",
        "AU4  brow lowerer",
        "AU12  lip corner puller",
        "AU99  ",
    ]
    assert [text.get_text() for text in bars.texts] == ["0.90", "0.20", "0.60", "0.40"]
    top, bottom = bars.get_ylim()
    assert top > bottom


@pytest.mark.parametrize(
    ("thresholds", "active"),
    [(None, [True, False, True, False]), ({"AU4": 0.2, "AU1": 0.95}, [False, True, True, False])],
)
def test_colour_tells_active_from_inactive(picture, thresholds, active):
    patches = draw(picture, thresholds=thresholds).axes[1].patches
    colours = [bar.get_facecolor() for bar in patches]
    assert len(set(colours)) == 2
    warm = [colour[0] > colour[2] for colour in colours]
    assert warm == active


def test_a_number_stands_beside_its_threshold(picture):
    bars = draw(picture, thresholds={"AU1": 0.5, "AU4": 0.25, "AU12": 0.95}).axes[1]
    places = {text.get_text(): text.get_position()[0] for text in bars.texts}
    assert places["0.20"] == pytest.approx(0.26)
    assert places["0.90"] == pytest.approx(0.91)
    assert places["0.60"] == pytest.approx(0.61)


def test_the_box_is_drawn_where_the_face_is(picture):
    (line,) = draw(picture, box=BOX).axes[0].lines
    assert set(line.get_xdata()) == {BOX[0], BOX[2]}
    assert set(line.get_ydata()) == {BOX[1], BOX[3]}
    assert not draw(picture).axes[0].lines


@pytest.mark.parametrize(("count", "shown"), [(2, ["AU1", "AU12"]), (9, ["AU1", "AU12", "AU99", "AU4"])])
def test_maps_of_the_strongest_come_first(picture, maps, count, shown):
    figure = draw(picture, maps=maps, map_count=count)
    assert [title.partition(":")[0] for title in titles(figure)[3:]] == shown
    for axes, name in zip(figure.axes[3:], shown, strict=True):
        overlay = np.asarray(axes.images[1].get_array())
        assert overlay.shape == (32, 32)
        index = list(SCORES).index(name)
        brightest = np.array(np.unravel_index(overlay.argmax(), overlay.shape)) * 7 // 32
        assert brightest.tolist() == [index + 1, 5 - index]


def test_without_maps_there_is_no_second_row(picture, maps):
    assert len(draw(picture).axes) == 2
    assert len(draw(picture, maps=maps, map_count=0).axes) == 2


@pytest.mark.parametrize("ending", [".jpg", ".pdf", ".svg"])
def test_other_formats(tmp_path, picture, ending):
    path = save_figure(draw(picture), tmp_path / f"face{ending}")
    assert path.stat().st_size > 1000
    assert len(list(tmp_path.iterdir())) == 1


def test_a_bad_format_leaves_nothing_behind(tmp_path, picture):
    with pytest.raises(ValueError, match="xyz"):
        save_figure(draw(picture), tmp_path / "face.xyz")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_earlier_file(tmp_path, picture):
    path = tmp_path / "face.png"
    path.write_bytes(b"earlier")
    figure = draw(picture)
    figure.set_size_inches(1e6, 1e6)
    with pytest.raises(ValueError, match="too large"):
        save_figure(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["face.png"]
    assert path.read_bytes() == b"earlier"


def test_what_cannot_be_put_in_its_place_leaves_no_part_of_it(tmp_path, picture):
    # the file is written whole, and then a folder stands where it should go
    (tmp_path / "face.png").mkdir()
    with pytest.raises(OSError, match=r"face\.png"):
        save_figure(draw(picture), tmp_path / "face.png")
    assert [file.name for file in tmp_path.iterdir()] == ["face.png"]


def test_an_earlier_file_is_replaced(tmp_path, picture):
    path = tmp_path / "face.png"
    path.write_bytes(b"earlier")
    save_figure(draw(picture), str(path))
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_a_notebook_shows_a_figure(picture):
    shown = Image.open(BytesIO(draw(picture)._repr_png_()))
    assert shown.format == "PNG"
    assert shown.width > 1000


def test_the_detector_draws_a_face(picture):
    two = Image.new("RGB", (224, 112), "gray")
    detector = ActionUnitDetector(*hiva_small(["AU1", "AU12"]), faces=WholePicture())
    figure = detector.plot(two)
    assert len(figure.axes) == 5
    assert not detector.activation_maps
    with pytest.raises(ValueError, match="`face_id` must be a face of the picture; it has 1; got 1"):
        detector.plot(two, face_id=1)
    detector.faces = lambda image: []
    with pytest.raises(ValueError, match="no face was found in it"):
        detector.plot(two)
