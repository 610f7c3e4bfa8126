"""What is drawn before anything is rendered: numbers, people, action units."""

import pytest
import torch

from hiva_hf.render import RENDERED_AUS, sample_scenes
from hiva_hf.render.action_units import LEVEL_EDGES, level_of
from hiva_hf.render.random import Draws, derive, mix, pixel_noise

MASK = (1 << 64) - 1
COLUMN = {au: k for k, au in enumerate(RENDERED_AUS)}


def splitmix(key):
    x = (key + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_the_hash_is_splitmix():
    keys = [0, 1, 2, 12345, (1 << 63) - 1, -1, -77]
    expected = [splitmix(key & MASK) for key in keys]
    assert [int(value) & MASK for value in mix(torch.tensor(keys))] == expected


def test_draws_are_uniform_normal_and_independent():
    draws = Draws(derive(torch.zeros(20000, dtype=torch.int64), torch.arange(20000)))
    values = draws.uniform(n=3)
    assert abs(float(values.mean()) - 0.5) < 0.01
    assert abs(float(values.std()) - 12**-0.5) < 0.01
    assert torch.corrcoef(values.T).fill_diagonal_(0).abs().max() < 0.03
    normal = draws.normal(1.0, 2.0)
    assert abs(float(normal.mean()) - 1) < 0.06
    assert abs(float(normal.std()) - 2) < 0.06
    counts = draws.choice([1, 2, 1]).bincount() / 20000
    assert torch.allclose(counts, torch.tensor([0.25, 0.5, 0.25]), atol=0.02)
    noise = pixel_noise(torch.tensor([3]), 20000)
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03


def test_a_scene_depends_on_seed_subject_and_frame_alone():
    subjects, frames = [k % 11 for k in range(40)], [k % 7 for k in range(40)]
    every = sample_scenes(subjects, frames, seed=4)
    for rows in ([7], [39, 0, 12], list(range(5, 28))):
        few = sample_scenes([subjects[r] for r in rows], [frames[r] for r in rows], seed=4)
        assert torch.equal(few.contributions, every.contributions[rows])
        assert torch.equal(few.others, every.others[rows])
        for name, value in few.values.items():
            assert torch.equal(value, every.values[name][rows]), name
    other = sample_scenes(subjects, frames, seed=5)
    assert not torch.equal(other.values["identity"], every.values["identity"])


def test_a_person_stays_and_the_picture_changes():
    scenes = sample_scenes([3, 3, 4], [0, 9, 9])
    for name in ("identity", "skin", "hair_length", "glasses", "hairline"):
        assert torch.equal(scenes.values[name][0], scenes.values[name][1]), name
    assert not torch.equal(scenes.values["identity"][1], scenes.values["identity"][2])
    # one frame later the place and its light are the same, the head is not
    scenes = sample_scenes([3, 3, 3], [0, 1, 9])
    assert torch.equal(scenes.values["key_light"][0], scenes.values["key_light"][1])
    assert not torch.equal(scenes.values["key_light"][0], scenes.values["key_light"][2])
    for name in ("pose", "noise_key", "jitter"):
        assert not torch.equal(scenes.values[name][0], scenes.values[name][1]), name


@pytest.fixture(scope="module")
def many():
    return sample_scenes([k // 20 for k in range(6000)], [k % 20 for k in range(6000)], seed=1)


def test_common_units_are_as_common_as_in_bp4d_and_none_is_rare(many):
    rates = (many.intensity > 0).float().mean(0)
    assert 0.3 < rates[COLUMN["AU12"]] < 0.5
    assert 0.25 < rates[COLUMN["AU6"]] < 0.5
    assert rates.min() > 0.03
    assert rates.max() < 0.65
    at_rest = ((many.intensity > 0).sum(1) == 0).float().mean()
    assert 0.12 < at_rest < 0.3


def test_units_come_together_and_exclude_each_other_as_in_life(many):
    there = (many.intensity > 0).float()
    together = torch.corrcoef(there.T)

    def of(a, b):
        return float(together[COLUMN[a], COLUMN[b]])

    assert of("AU6", "AU12") > 0.25
    assert of("AU1", "AU2") > 0.25
    assert of("AU25", "AU26") > 0.2
    for a, b in (("AU26", "AU27"), ("AU24", "AU25"), ("AU43", "AU5"), ("AU24", "AU26")):
        assert not (there[:, COLUMN[a]] * there[:, COLUMN[b]]).any(), (a, b)


def test_levels_are_those_of_the_strength(many):
    assert torch.equal(many.intensity, level_of(many.strength) * (many.intensity > 0))
    counts = many.intensity[many.intensity > 0].bincount(minlength=6)[1:].float()
    assert (counts / counts.sum() > 0.07).all()
    assert level_of(torch.tensor([0.0, 0.159, LEVEL_EDGES[0], 0.5, 1.0])).tolist() == [0, 0, 1, 3, 5]
    # what is absent moves the face by a trace at most
    assert float(many.strength[many.intensity == 0].max()) < LEVEL_EDGES[0]


def test_some_faces_are_uneven_and_faces_at_rest_differ(many):
    from hiva_hf.render.face_model import EXPRESSIONS

    left, right = (many.contributions[:, COLUMN["AU12"], EXPRESSIONS.index(f"mouthSmile_{side}")] for side in "LR")
    strong = torch.maximum(left, right) > 0.3
    uneven = (torch.minimum(left, right) / torch.maximum(left, right))[strong]
    assert (uneven < 0.5).any()
    assert float(uneven.median()) > 0.8
    rest = many.others[:, EXPRESSIONS.index("mouthFrown_L")]
    assert 0.045 < float(rest.std()) < 0.08
    assert 0.1 < float(rest.abs().max()) < 0.2


def test_chosen_units():
    scenes = sample_scenes([0, 1], [0, 0])
    strength = torch.zeros(2, 22)
    strength[1, COLUMN["AU12"]] = 0.5
    shown = scenes.showing(strength)
    assert shown.intensity.sum(1).tolist() == [0, 3]
    assert not shown.contributions[0].any()
    assert torch.equal(shown.others, scenes.others)
    with pytest.raises(ValueError, match=r"`strength` must be 0 to 1 of shape \(2, 22\); got \(2, 22\) from 0 to 2"):
        scenes.showing(strength * 4)


@pytest.mark.parametrize("numbers", [([], []), ([1], [1, 2]), ([-1], [0]), ([0.5], [0])])
def test_numbers_of_people_are_checked(numbers):
    with pytest.raises(ValueError, match="`subjects` and `frames` must be lists of one length"):
        sample_scenes(*numbers)
