import dataclasses

import pytest

from hiva_hf.facs import ACTION_UNITS, BP4D_AUS, DISFA_AUS, au_label

NAMES = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU17": "chin raiser",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU43": "eyes closed",
    "AU45": "blink",
}
REGIONS = {"brow", "eye", "nose", "cheek", "mouth", "chin", "jaw"}


@pytest.mark.parametrize(
    "spelling", [1, "1", "01", "AU1", "au1", "AU01", "au01", "AU_1", "AU-01", "Au 1", " AU1 ", "AU001"]
)
def test_every_spelling_is_the_same_au(spelling):
    assert au_label(spelling) == "AU1"


@pytest.mark.parametrize(
    ("spelling", "label"), [(10, "AU10"), ("AU10", "AU10"), ("au012", "AU12"), ("AU_45", "AU45"), ("20", "AU20")]
)
def test_numbers_of_two_digits_keep_their_zeros(spelling, label):
    assert au_label(spelling) == label


@pytest.mark.parametrize(
    "spelling", [3, 0, -1, 1.0, None, True, "", "AU", "AU3", "AU99", "AU1_r", "AU1.", "XAU1", "AU1 AU2"]
)
def test_what_names_no_au_is_refused(spelling):
    with pytest.raises(ValueError, match="`au` must name an action unit") as error:
        au_label(spelling)
    assert repr(spelling) in str(error.value)
    assert "Known: AU1, AU2, AU4" in str(error.value)


def test_every_label_is_its_own_spelling():
    for label, unit in ACTION_UNITS.items():
        assert label == unit.label == f"AU{unit.number}"
        assert au_label(label) == au_label(unit.number) == au_label(f"AU{unit.number:02d}") == label


def test_table_has_no_duplicates():
    units = list(ACTION_UNITS.values())
    for field in ("number", "name"):
        values = [getattr(unit, field) for unit in units]
        assert len(values) == len(set(values))
    numbers = [unit.number for unit in units]
    assert numbers == sorted(numbers)
    assert len(units) == 31


def test_table_is_filled():
    for unit in ACTION_UNITS.values():
        assert unit.name == unit.name.strip().lower() != ""
        assert unit.muscles.strip()
        assert unit.region in REGIONS


@pytest.mark.parametrize(("label", "name"), NAMES.items())
def test_names_are_those_of_facs(label, name):
    assert ACTION_UNITS[label].name == name


def test_an_action_unit_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ACTION_UNITS["AU1"].name = "something else"


@pytest.mark.parametrize(
    ("aus", "numbers"),
    [(BP4D_AUS, (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)), (DISFA_AUS, (1, 2, 4, 6, 9, 12, 25, 26))],
    ids=["BP4D", "DISFA"],
)
def test_benchmark_lists(aus, numbers):
    assert tuple(ACTION_UNITS[au].number for au in aus) == numbers
