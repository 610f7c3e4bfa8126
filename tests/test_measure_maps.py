"""Where activation maps lie, and what is said of photographs: sums by hand, and the scripts on a tiny model."""

# fixtures are named where they are used
# ruff: noqa: F811

import shutil
from pathlib import Path

import measure_maps
import measure_photographs
import numpy as np
import pandas as pd
import pytest
import torch
import typer
from default_faces import Checkpoint
from measure_maps import CHANCE, DDCA, PLACE, SAME, VISUAL, grad_cam, mass_inside, measure, points_into, usual_places
from measure_photographs import against_rest, shown_by
from measured import SIDE, folder, known, visual  # noqa: F401
from PIL import Image

# activation maps


def test_the_highest_point_lies_on_a_mask_or_not():
    mask = np.zeros((64, 64), dtype=bool)
    mask[:16, 16:32] = True
    a_map = np.zeros((4, 4))
    a_map[0, 1] = 1.0
    assert points_into(a_map, mask)
    assert not points_into(a_map.T, mask)
    assert not points_into(np.zeros((4, 4)), mask)
    # a map that is the same everywhere points nowhere
    assert not points_into(np.full((4, 4), 1 / 16), np.ones((64, 64), dtype=bool))


def test_mass_is_the_share_on_a_mask():
    mask = np.zeros((64, 64), dtype=bool)
    mask[:16, :8] = True
    a_map = np.zeros((4, 4))
    a_map[0, 0] = 3.0
    assert mass_inside(a_map, mask) == 0.5
    a_map[3, 3] = 1.0
    assert mass_inside(a_map, mask) == pytest.approx(0.375)
    assert mass_inside(np.ones((4, 4)), mask) == pytest.approx(mask.mean())
    assert mass_inside(np.zeros((4, 4)), mask) == 0.0


def boxes(places):
    masks = np.zeros((len(places), 1, 32, 32), dtype=bool)
    for image, (row, column) in enumerate(places):
        masks[image, 0, row : row + 8, column : column + 8] = True
    return masks


def test_maps_are_measured_where_an_action_unit_is_strong_and_seen():
    masks = boxes([(0, 0), (8, 8), (16, 16), (24, 24)])
    masks[3, 0, :-3] = False
    faces = known([[3], [5], [2], [4]], masks)
    right = masks.reshape(4, 1, 4, 8, 4, 8).mean((3, 5))
    half = right.copy()
    half[1] = half[1, :, ::-1, :]
    table = measure(faces, ["AU12"], {DDCA: right, SAME: half}).set_index(["au", "map"])
    # at level B, and behind something: neither is asked for
    assert (table["faces"] == 2).all()
    assert table.loc[("AU12", CHANCE), "mass"] == pytest.approx(1 / 16)
    assert table.loc[("AU12", DDCA), ["pointing", "mass"]].tolist() == [1, 1]
    assert table.loc[("AU12", SAME), ["pointing", "mass"]].tolist() == [0.5, 0.5]
    assert table.loc[("mean of BP4D's", SAME), "pointing"] == 0.5


def test_the_usual_place_is_that_of_other_faces():
    faces = known([[3], [3], [3], [3]], boxes([(0, 0), (8, 8), (0, 8), (8, 8)]))
    places = usual_places(faces, np.ones((4, 1), dtype=bool), 4)[:, 0]
    assert places[0, 1, 1] == 1.0
    assert places[0].sum() == 1.0
    assert (places[1, 0, 0], places[1, 0, 1], places[1, 1, 1]) == (0.5, 0.5, 0.0)


@pytest.mark.parametrize("which", ["folder", "visual"])
def test_grad_cam_is_the_slope_of_a_logit(which, request):
    model = Checkpoint(request.getfixturevalue(which)).model.double()
    pixels = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = grad_cam(model, pixels)
    assert maps.shape == (2, 22, 3, 3)
    assert not model.hiva.vision_projection._forward_pre_hooks
    seen, raised = {}, {}

    def look(_, inputs):
        seen["tokens"] = inputs[0].detach()
        step = raised.get("step")
        return inputs if step is None else (inputs[0] + step, *inputs[1:])

    handle = model.hiva.vision_projection.register_forward_pre_hook(look)
    with torch.no_grad():
        model(pixels)
        tokens = seen["tokens"].clone()
        slopes = []
        # every place of a channel raised together tells the sum of its slopes
        for channel in range(tokens.shape[-1]):
            ends = []
            for sign in (1, -1):
                raised["step"] = torch.zeros_like(tokens[:1])
                raised["step"][..., channel] = sign * 1e-5
                ends.append(model(pixels).logits)
            slopes.append((ends[0] - ends[1]) / 2e-5)
    handle.remove()
    weights = torch.stack(slopes, -1) / tokens.shape[1]
    expected = torch.einsum("bkc,bnc->bkn", weights, tokens).relu().unflatten(-1, (3, 3))
    assert maps.max() > 0
    np.testing.assert_allclose(maps, expected.numpy(), rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_maps_of_a_checkpoint_are_measured(folder, visual, model_file, tmp_path, capsys):
    measure_maps.main(folder, model_file, visual, tmp_path, people=40)
    table = pd.read_csv(tmp_path / "maps.csv")
    assert set(table["map"]) == {DDCA, SAME, VISUAL, PLACE, CHANCE}
    assert table["pointing"].between(0, 1).all()
    assert table["mass"].between(0, 1).all()
    # a place where the action unit always is beats a map that was never trained
    means = table[table["au"] == "mean of all"].set_index("map")
    assert means.loc[PLACE, "pointing"] > means.loc[DDCA, "pointing"]
    for file in ("maps.png", "maps-examples.png"):
        assert Image.open(tmp_path / file).width > 800
    assert "usual place" in (tmp_path / "maps.md").read_text(encoding="utf-8")
    assert "mean of all" in capsys.readouterr().out
    with pytest.raises(typer.BadParameter, match="DDCA"):
        measure_maps.main(visual, model_file)


# photographs


def test_sub_folders_say_what_is_shown(tmp_path):
    assert shown_by(tmp_path, tmp_path / "Happy" / "a.jpg") == "smiling"
    assert shown_by(tmp_path, tmp_path / "rest" / "deep" / "a.jpg") == "neutral"
    assert shown_by(tmp_path, tmp_path / "winking" / "a.jpg") == "winking"
    assert shown_by(tmp_path, tmp_path / "a.jpg") == ""


def test_expressions_are_told_from_rest():
    shown = np.array(["neutral"] * 10 + ["smiling"] * 10 + ["winking"] * 9)
    rest = np.repeat([0.1, 0.2, 0.3, 0.4, 0.9], 2)
    scores = np.c_[np.r_[rest, np.full(10, 0.5), np.full(9, 0.95)], np.full(29, 0.2)]
    table = against_rest(shown, scores, ["AU12", "AU1"], np.array([0.5, 0.3])).set_index(["shown", "au"])
    assert table.loc[("smiling", "AU12"), "auc"] == pytest.approx(0.8)
    assert table.loc[("smiling", "AU1"), "auc"] == 0.5
    assert table.loc[("smiling", "AU12"), "expected"]
    assert not table.loc[("smiling", "AU1"), "expected"]
    assert table.loc[("neutral", "AU12"), ["mean", "called"]].tolist() == pytest.approx([0.38, 0.2])
    assert (table.loc["neutral"]["called"] == [0.2, 0.0]).all()
    # nine are too few
    assert np.isnan(table.loc[("winking", "AU12"), "auc"])
    assert table.index.get_level_values(0)[0] == "neutral"


def test_photographs_are_measured_and_people_stay_out(folder, tmp_path, capsys):
    astronaut = Path(pytest.importorskip("skimage").__file__).parent / "data" / "astronaut.png"
    portraits, out, sheets = tmp_path / "people", tmp_path / "out", tmp_path / "sheets"
    for kind in ("neutral", "smile"):
        (portraits / kind).mkdir(parents=True)
        shutil.copyfile(astronaut, portraits / kind / "someone.png")
    Image.new("RGB", (80, 80)).save(portraits / "smile" / "nobody.png")
    (portraits / "smile" / "broken.jpg").write_bytes(b"no picture")
    (portraits / "notes.txt").write_text("not looked at")
    measure_photographs.main(folder, [portraits], out)
    table = pd.read_csv(out / "photographs-expressions.csv")
    assert set(table["shown"]) == {"neutral", "smiling"}
    counted = table.groupby("shown")[["pictures", "faces"]].first()
    assert counted.loc["smiling"].tolist() == [2, 1]
    assert counted.loc["neutral"].tolist() == [1, 1]
    assert "broken.jpg" in capsys.readouterr().out
    made = {file.name for file in out.iterdir()}
    assert {"photograph-astronaut.png", "photographs.csv", "photographs.md"} <= made
    assert not any("someone" in file.read_text(encoding="utf-8") for file in out.glob("*.[cm][sd]*"))
    measure_photographs.main(folder, [portraits], out, sheets)
    assert {file.name for file in sheets.iterdir()} == {"people.csv", "people-neutral.png", "people-smiling.png"}
    rows = pd.read_csv(sheets / "people.csv")
    assert sorted(rows["picture"]) == ["neutral/someone.png", "smile/someone.png"]
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (80, 80)).save(empty / "nobody.png")
    with pytest.raises(typer.BadParameter, match="no face"):
        measure_photographs.main(folder, [empty], out)
