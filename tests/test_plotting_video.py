"""Pictures of a video and of many pictures: the numbers that are drawn."""

import sys

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from hiva_hf.plotting import ACTIVE, INACTIVE, save_figure
from hiva_hf.plotting_video import plot_activation_maps, plot_summary, plot_timeline, thin_line
from hiva_hf.results import FaceResult

LABELS = ["AU1", "AU12"]
NAN = float("nan")


def face(frame, face_id, *scores, source="v.mp4", confidence=0.9, timestamp=None):
    time = frame / 10 if timestamp is None else timestamp
    return FaceResult(
        source, frame, time, face_id, True, confidence, [0, 0, 9, 9], [], dict(zip(LABELS, scores, strict=True))
    )


def nobody(frame, source="v.mp4"):
    return FaceResult(source, frame, frame / 10, -1, False, 0.0)


def same_colour(drawn, colour):
    return np.allclose(drawn[:3], matplotlib.colors.to_rgb(colour))


def spans(axes):
    """Left and right end of each grey span."""
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]


def filled(axes):
    """Left and right end of each filled area."""
    (collection,) = axes.collections
    assert same_colour(collection.get_facecolor()[0], ACTIVE)
    return [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in collection.get_paths()]


@pytest.fixture
def video():
    """Person 0 in frames 0-3 and 6-7; person 1 in 2-4; nobody in 5."""
    first = {0: (0.1, 0.2), 1: (0.2, 0.8), 2: (0.3, 0.6), 3: (0.4, 0.4), 6: (0.9, 0.1), 7: (0.8, 0.1)}
    second = {2: (0.5, 0.5), 3: (0.6, 0.5), 4: (0.7, 0.5)}
    rows = []
    for frame in range(8):
        rows += [face(frame, 0, *first[frame])] if frame in first else []
        rows += [face(frame, 1, *second[frame])] if frame in second else []
        rows += [nobody(frame)] if frame == 5 else []
    return rows


def test_lines_hold_the_scores_of_the_person_seen_most(video):
    figure = plot_timeline(iter(video), LABELS, title="interview")
    top, bottom = figure.axes
    for axes, expected in (
        (top, [0.1, 0.2, 0.3, 0.4, NAN, NAN, 0.9, 0.8]),
        (bottom, [0.2, 0.8, 0.6, 0.4, NAN, NAN, 0.1, 0.1]),
    ):
        line = axes.lines[0]
        np.testing.assert_allclose(line.get_xdata(), np.arange(8) / 10)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert [axes.get_ylabel() for axes in figure.axes] == ["AU1 inner brow raiser", "AU12 lip corner puller"]
    assert top.get_shared_x_axes().joined(top, bottom)
    assert figure.get_suptitle() == "interview: person 0, found in 6 of 8 frames; 1 other person"
    assert "seconds" in bottom.get_xlabel()


def test_another_person_can_be_chosen(video):
    figure = plot_timeline(video, LABELS, face_id=1)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [NAN, NAN, 0.5, 0.6, 0.7, NAN, NAN, NAN], rtol=1e-6)
    assert figure.get_suptitle().startswith("person 1, found in 3 of 8 frames")
    np.testing.assert_allclose(spans(figure.axes[0]), [(0.0, 0.2), (0.4, 0.7)])
    with pytest.raises(ValueError, match=r"`face_id` .* got 5\. Known: 0, 1"):
        plot_timeline(video, LABELS, face_id=5)


def test_gaps_are_grey_and_the_legend_says_what_they_are(video):
    figure = plot_timeline(video, LABELS)
    for axes in figure.axes:
        np.testing.assert_allclose(spans(axes), [(0.3, 0.6)])
        red, green, blue, _ = axes.patches[0].get_facecolor()
        assert min(red, green, blue) > 0.8
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["probability", "threshold", "active", "person 0 not found"]
    alone = plot_timeline([row for row in video if row.face_id < 1], LABELS)
    assert alone.legends[0].get_texts()[-1].get_text() == "no face found"
    whole = plot_timeline([face(frame, 0, 0.1, 0.2) for frame in range(3)], LABELS)
    assert not spans(whole.axes[0])
    assert len(whole.legends[0].get_texts()) == 3


def test_time_above_the_threshold_is_filled_from_crossing_to_crossing(video):
    top, bottom = plot_timeline(video, LABELS, {"AU1": 0.35}).axes
    # AU1 goes from 0.3 to 0.4 between 0.2 s and 0.3 s, then the gap, then 0.9 and 0.8
    np.testing.assert_allclose(filled(top), [(0.25, 0.3), (0.6, 0.7)], atol=1e-6)
    # AU12 has the default threshold: 0.2, 0.8, 0.6, 0.4
    np.testing.assert_allclose(filled(bottom), [(0.05, 0.25)], atol=1e-6)
    assert [axes.lines[-1].get_ydata()[0] for axes in (top, bottom)] == pytest.approx([0.35, 0.5])


def test_a_score_at_its_threshold_is_active():
    rows = [face(frame, 0, 0.7, 0.699) for frame in range(2)]
    limits = dict.fromkeys(LABELS, 0.7)
    top, bottom = plot_timeline(rows, LABELS, limits).axes
    assert filled(top)
    assert not filled(bottom)
    assert [bar.get_width() for bar in plot_summary(rows, LABELS, limits).axes[0].patches] == [100, 0]


def test_a_frame_between_two_gaps_is_a_dot():
    rows = [nobody(0), face(1, 0, 0.7, 0.2), nobody(2), face(3, 0, 0.1, 0.1), face(4, 0, 0.2, 0.1)]
    line, dots, _ = plot_timeline(rows, LABELS).axes[0].lines
    assert line.get_linestyle() == "-"
    assert dots.get_marker() == "."
    np.testing.assert_allclose(dots.get_xydata(), [[0.1, 0.7]], rtol=1e-6)


def test_intensities_have_their_own_scale():
    rows = [face(frame, 0, 1.0, 3.0) for frame in range(3)]
    top, bottom = plot_timeline(rows, LABELS, intensity=True).axes
    assert top.get_ylim()[1] > 5
    assert not filled(top)
    np.testing.assert_allclose(filled(bottom), [(0, 0.2)])


def test_long_videos_are_thinned_and_keep_their_peaks():
    count = 50_001
    quiet = np.full(count, 0.2)
    quiet[[17, 20_123, 50_000]] = [0.95, 0.97, 0.9]
    quiet[30_001] = 0.01
    gone = range(40_000, 42_000)
    rows = (nobody(frame) if frame in gone else face(frame, 0, quiet[frame], 0.1) for frame in range(count))
    axes = plot_timeline(rows, LABELS).axes[0]
    x, y = axes.lines[0].get_data()
    assert len(x) <= 2000
    assert (np.diff(x) >= 0).all()
    drawn = dict(zip(x.round(4).tolist(), y.round(4).tolist(), strict=True))
    assert [drawn[time] for time in (1.7, 2012.3, 5000.0, 3000.1)] == pytest.approx([0.95, 0.97, 0.9, 0.01])
    missing = x[np.isnan(y)]
    assert missing.min() == pytest.approx(4000, abs=10)
    assert missing.max() == pytest.approx(4200, abs=10)
    np.testing.assert_allclose(spans(axes), [(4000, 4200)], atol=10)


def test_gaps_narrower_than_what_can_be_drawn_are_left_out():
    rows = [nobody(frame) if frame % 7 == 3 else face(frame, 0, 0.2, 0.1) for frame in range(10_000)]
    axes = plot_timeline(rows, LABELS).axes[0]
    assert not spans(axes)
    assert not np.isnan(axes.lines[0].get_ydata()).any()


def test_thinning_keeps_short_lines_as_they_are():
    times, values = np.arange(2000.0), np.arange(2000.0)
    assert thin_line(times, values)[1] is values
    times, values = np.arange(2500.0), np.sin(np.arange(2500.0))
    x, y = thin_line(times, values)
    assert len(x) == 2000
    np.testing.assert_array_equal(y, np.sin(x))
    assert (y.min(), y.max()) == (values.min(), values.max())


def test_timelines_of_nobody_and_of_nothing():
    figure = plot_timeline([nobody(0), nobody(1)], LABELS)
    assert figure.get_suptitle() == "no face in any frame"
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).all()
    np.testing.assert_allclose(spans(figure.axes[0]), [(0, 0.1)])
    plot_timeline([face(0, 0, 0.1, 0.9)], LABELS)
    with pytest.raises(ValueError, match="at least one frame"):
        plot_timeline([], LABELS)
    with pytest.raises(ValueError, match=r"one video; got v\.mp4 and w\.mp4"):
        plot_timeline([nobody(0), nobody(1, source="w.mp4")], LABELS)


PICTURES = [
    face(0, 0, 0.9, 0.9, source="a.png"),
    face(0, 1, 0.1, 0.7, source="a.png", confidence=0.41),
    nobody(0, source="b.png"),
    nobody(0, source="b.png"),
    face(0, 0, 0.2, 0.5, source="c.png"),
    face(0, 0, 0.5, 0.1, source="d.png"),
]


def test_bars_are_as_long_as_the_shares():
    bars = plot_summary(iter(PICTURES), LABELS).axes[0]
    assert [bar.get_width() for bar in bars.patches] == [50.0, 75.0]
    assert [text.get_text().strip() for text in bars.texts] == ["50 %", "75 %"]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["AU1 inner brow raiser", "AU12 lip corner puller"]
    changed = plot_summary(PICTURES, LABELS, {"AU1": 0.95}).axes[0]
    assert [bar.get_width() for bar in changed.patches] == [0.0, 75.0]


def test_bars_of_intensities_are_means():
    figure = plot_summary([face(0, 0, 1.0, 4.0), face(1, 0, 2.0, 5.0)], LABELS, intensity=True)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1.5, 4.5]
    assert "mean intensity" in figure.axes[0].get_xlabel()
    # active from 2: AU1 in one of two faces, AU12 in both
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), [[100, 100], [50, 100]])


def test_the_head_counts_pictures_faces_and_people(video):
    assert plot_summary(PICTURES, LABELS, title="holiday").get_suptitle().splitlines() == [
        "holiday",
        "5 pictures   ·   4 faces   ·   2 pictures without a face   ·   at most 2 in a picture   ·   "
        "confidence in the faces: median 0.90, 5 % at most 0.48",
    ]
    parts = plot_summary(video, LABELS).get_suptitle().split("   ·   ")
    assert parts[:4] == ["8 frames", "9 faces", "1 frame without a face", "2 people"]
    nameless = [face(0, number, 0.1, 0.1, source="") for number in (0, 1, 0, 0, 1, 2)]
    parts = plot_summary([*nameless, nobody(0, source="")], LABELS).get_suptitle().split("   ·   ")
    assert parts[:4] == ["4 pictures", "6 faces", "1 picture without a face", "at most 3 in a picture"]
    parts = plot_summary([nobody(0, source=""), *nameless], LABELS).get_suptitle().split("   ·   ")
    assert parts[:3] == ["4 pictures", "6 faces", "1 picture without a face"]
    untold = plot_summary([face(0, 0, 0.1, 0.1, confidence=NAN)], LABELS).get_suptitle()
    assert untold == "1 picture   ·   1 face   ·   0 pictures without a face   ·   at most 1 in a picture"


def test_strips_show_the_distribution_of_each_unit():
    strips = plot_summary(PICTURES, LABELS, {"AU12": 0.6}).axes[1]
    for row, scores, limit in ((0, [0.9, 0.1, 0.2, 0.5], 0.5), (1, [0.9, 0.7, 0.5, 0.1], 0.6)):
        bars = [bar for bar in strips.patches if bar.get_y() == row + 0.42 and bar.get_height()]
        assert len(bars) == 4
        for bar, score in zip(bars, sorted(scores), strict=True):
            assert bar.get_x() - 1e-6 <= score <= bar.get_x() + bar.get_width() + 1e-6
            assert same_colour(bar.get_facecolor(), ACTIVE if score >= limit else INACTIVE)
    marks = [segment[0][0] for lines in strips.collections for segment in lines.get_segments()]
    assert marks == pytest.approx([0.5, 0.6])
    # four times the faces: twice as high
    # and a score beside its threshold does not lie in a splinter of a bar
    crowd = plot_summary([face(0, 0, score, 0.1) for score in [0.11] * 4 + [0.6005]], LABELS, {"AU1": 0.601}).axes[1]
    heights = [-bar.get_height() for bar in crowd.patches if bar.get_y() == 0.42 and bar.get_height()]
    assert heights == pytest.approx([0.8, 0.4], abs=0.02)


def test_the_heat_map_shows_what_is_active_together():
    together = plot_summary(PICTURES, LABELS).axes[2]
    # AU1 in two faces, one of them with AU12; AU12 in three
    np.testing.assert_allclose(together.images[0].get_array(), [[100, 50], [100 / 3, 100]])
    assert [text.get_text() for text in together.texts] == ["100", "50", "33", "100"]
    never = plot_summary([face(0, 0, 0.1, 0.9)], LABELS).axes[2]
    assert [text.get_text() for text in never.texts] == ["-", "-", "0", "100"]
    assert never.images[0].get_array().mask.tolist() == [[True, True], [False, False]]


def test_summaries_of_no_face_and_of_nothing():
    figure = plot_summary([nobody(0), nobody(1)], LABELS)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, 0]
    assert figure.axes[0].get_xlabel() == "there is no face"
    with pytest.raises(ValueError, match="at least one picture"):
        plot_summary([], LABELS)


@pytest.fixture
def crop():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8))


SCORES = {"AU1": 0.93, "AU4": 0.2, "AU6": 0.5, "AU12": 1.0, "AU99": 0.004}


def test_every_unit_has_its_map(crop):
    maps = np.zeros((5, 7, 7), dtype=np.float32)
    for index in range(5):
        maps[index, index + 1, 5 - index] = index + 1
    figure = plot_activation_maps(crop, SCORES, maps, title="one face")
    shown = [axes for axes in figure.axes if len(axes.images) == 2]
    assert [axes.get_title() for axes in shown] == [
        "AU1 inner brow raiser .93",
        "AU4 brow lowerer .20",
        "AU6 cheek raiser .50",
        "AU12 lip corner puller 1.00",
        "AU99 .00",
    ]
    for index, axes in enumerate(shown):
        grey, attention = axes.images
        np.testing.assert_array_equal(grey.get_array(), np.asarray(crop.convert("L")))
        values = np.asarray(attention.get_array())
        brightest = np.array(np.unravel_index(values.argmax(), values.shape)) * 7 // 56
        assert brightest.tolist() == [index + 1, 5 - index]
        assert attention.get_cmap().name == "cividis"
    active = [axes.spines["left"].get_visible() for axes in shown]
    assert active == [True, False, True, True, False]
    assert [same_colour(matplotlib.colors.to_rgb(axes.title.get_color()), ACTIVE) for axes in shown] == active
    assert any("brighter: more attention" in axes.get_xlabel() for axes in figure.axes)
    assert figure.get_suptitle() == "one face"
    # what the grid has too many stays blank
    assert sum(axes.axison for axes in figure.axes) == 6


def test_maps_of_intensities_and_of_too_few(crop):
    figure = plot_activation_maps(crop, {"AU1": 2.0, "AU4": 1.9}, np.ones((2, 7, 7)), intensity=True)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["AU1 inner brow raiser 2.0", "AU4 brow lowerer 1.9"]
    assert [axes.spines["left"].get_visible() for axes in figure.axes[:2]] == [True, False]
    with pytest.raises(ValueError, match="each of the 5 scores; got 3"):
        plot_activation_maps(crop, SCORES, np.ones((3, 7, 7)))


def test_nothing_overlaps(tmp_path, video, crop):
    """Titles and names stay clear of each other in what is written."""
    figures = {
        "timeline": plot_timeline(video, LABELS, title="interview"),
        "summary": plot_summary(PICTURES, LABELS, title="holiday"),
        "maps": plot_activation_maps(crop, {f"AU{n}": 0.9 for n in range(1, 13)}, np.ones((12, 7, 7)), title="face"),
    }
    for name, figure in figures.items():
        with Image.open(save_figure(figure, tmp_path / f"{name}.png")) as image:
            assert 1200 <= image.width <= 1800
        boxes = [axes.get_window_extent() for axes in figure.axes if axes.axison]
        boxes += [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        boxes.append(figure._suptitle.get_window_extent())
        for index, box in enumerate(boxes):
            for other in boxes[:index]:
                assert not (box.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98))), name


@pytest.mark.parametrize("plot", [plot_timeline, plot_summary])
def test_without_matplotlib_the_error_names_the_extra(monkeypatch, plot):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"hiva-hf\[plot\]"):
        plot(PICTURES[:1], LABELS)
