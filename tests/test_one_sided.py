"""Action units of one side of the face: their names, and what a flip does to their labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from hiva_hf import HiVAImageProcessorPil, hiva_small
from hiva_hf.data import FaceAugmentation, FaceTransform, load_folder
from hiva_hf.facs import au_columns, au_label, au_meaning, au_order, mirrored
from hiva_hf.results import padded

NAMES = ["AU12L", "AU4", "AU12R", "AU14R"]


@pytest.mark.parametrize("spelling", ["AU12L", "L12", "au12L", "AU_12L", "AUL12", "AU012L"])
def test_spellings(spelling):
    assert au_label(spelling) == "AU12L"


@pytest.mark.parametrize("spelling", ["AU12l", "L12R", "AU12LR", "12 L", "AU3L"])
def test_what_is_no_side(spelling):
    with pytest.raises(ValueError, match="must name an action unit"):
        au_label(spelling)


def test_sides_in_tables_and_texts():
    assert mirrored("AU12L") == "AU12R"
    assert mirrored("AU12R") == "AU12L"
    assert mirrored("AU12") == "AU12"
    assert au_meaning("AU12R") == "lip corner puller, right"
    assert [padded(name) for name in ("AU1L", "AU12", "smile")] == ["AU01L", "AU12", "smile"]
    assert sorted(["AU12R", "AU2", "AU12", "AU12L"], key=au_order) == ["AU2", "AU12", "AU12L", "AU12R"]
    # a small r is the intensity in files of the field
    assert au_columns(["frame", "0", "AU12_r", "AU04L", "R2", "AU60"]) == {"AU12": 2, "AU4L": 3, "AU2R": 4, "AU60": 5}


def test_one_column_of_each_action_unit():
    header = ["AU1_p", "AU12_r", "AU12_c", "AU4_c", "AU4", "AU4_r", "AU1_r"]
    for order in (header, header[::-1]):
        occurrence = {au: order[place] for au, place in au_columns(order).items()}
        assert occurrence == {"AU1": "AU1_r", "AU12": "AU12_c", "AU4": "AU4"}
        assert au_columns(order, prefer="r")["AU12"] == order.index("AU12_r")
    with pytest.raises(ValueError, match="'AU12' and 'AU012' are both AU12"):
        au_columns(["AU12", "frame", "AU012"])
    with pytest.raises(ValueError, match="'AU12_c' and '12_c' are both AU12"):
        au_columns(["AU12_c", "12_c"])
    assert len(au_columns(["AU12", "AU12L", "AU12R"])) == 3


def transform(flip, **options):
    still = FaceAugmentation(rotation=0, scale=0, shift=0, flip=flip, colour=0, blur=0, erase=0)
    processor = HiVAImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False)
    return FaceTransform(processor, still, **options)


def half():
    """Bright on the left of the picture."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16] = 200
    return Image.fromarray(image)


@pytest.mark.parametrize("flip", [0, 1])
def test_a_flip_swaps_the_sides(flip):
    batch = {"image": [half()], "labels": [[1, 1, 0, 1]]}
    made = transform(flip, names=NAMES)(batch)
    bright = made["pixel_values"][0, 0, :, :16].mean() > made["pixel_values"][0, 0, :, 16:].mean()
    assert bright == (not flip)
    # of AU14 the left side was not coded, so that of a flipped face the right one is not known
    assert made["labels"].tolist() == ([[0, 1, 1, -100]] if flip else [[1, 1, 0, 1]])
    assert batch["labels"] == [[1, 1, 0, 1]]


def test_only_flipped_faces_of_a_batch_are_swapped():
    batch = {"image": [half()] * 40, "labels": [[1, 0, 0, 0]] * 40}
    torch.manual_seed(0)
    made = transform(0.5, names=NAMES)(batch)
    flipped = made["pixel_values"][:, 0, :, 16:].mean((1, 2)) > made["pixel_values"][:, 0, :, :16].mean((1, 2))
    assert 5 < flipped.sum() < 35
    assert torch.equal(made["labels"][:, 2] == 1, flipped)
    assert torch.equal(made["labels"][:, 3] == -100, flipped)


def test_without_sides_a_flip_leaves_labels_alone():
    assert transform(1, names=["AU12", "AU4"])({"image": [half()], "labels": [[1, 0]]})["labels"].tolist() == [[1, 0]]


def test_a_model_of_both_sides(tmp_path):
    model, processor = hiva_small(["AU12L", "AU12R", "AU4"])
    assert processor.id2label == {0: "AU12L", 1: "AU12R", 2: "AU4"}
    assert torch.equal(model.hiva.text_embeds[0], model.hiva.text_embeds[1])
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).config.au_names == ["AU12L", "AU12R", "AU4"]


def test_a_folder_of_ones_own(tmp_path):
    half().save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file_name,AU12R,AU12L,AU04\na.png,1,0,9\n")
    dataset = load_folder(tmp_path)
    assert dataset.info.description.endswith("AU4 AU12L AU12R")
    assert dataset[0]["labels"] == [-100, 0, 1]
