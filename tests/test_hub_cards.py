"""Cards: what they say, what they do not claim, and what keeps one from being sent."""

# fixtures are imported by name
# ruff: noqa: F811
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_fixtures import ALICE, CARDS, client, files_of, hub, logits, no_cuts, one_sentence, place  # noqa: F401
from huggingface_hub import ModelCard

from hiva_hf import HiVAImageProcessorPil, hiva_small, hiva_small_text
from hiva_hf.checkpoint import load_detector
from hiva_hf.hub import card_problems, model_upload
from hiva_hf.hub.cards import _bank_of
from hiva_hf.hub.measured import cost_of, protocol_of
from hiva_hf.hub.remarks import alignment_of_crops, calibration_of, group_table, near_chance
from hiva_hf.hub.sources import consent_of, terms_of
from hiva_hf.training import save_detector


def test_the_card_says_what_was_measured_and_what_was_not(client, hub, trained, place):
    client.hiva("push", trained.folder, "org/carded", "--license", "apache-2.0", token=ALICE)
    text = hub.store.blob_path(files_of(hub, "org/carded")["README.md"]["sha256"]).read_text()
    card = ModelCard(text)
    results = json.loads((trained.folder / "results.json").read_text())
    figures = {entry.metric_name: entry.metric_value for entry in card.data.eval_results}
    known = {name: value for name, value in results["metrics"].items() if value is not None}
    assert figures["AUC, mean"] == pytest.approx(known["mean_auc"], abs=1e-4)
    for unit in ("AU12", "AU4", "AU6"):
        assert (f"F1, {unit}" in figures) == (f"f1_{unit}" in known)
    assert card.data.license == "apache-2.0"
    assert "energy and carbon were not measured" in text
    # the tested data tells the skin tone of one person
    ((group, row),) = results["groups"]["skin_tone"].items()
    assert row["people"] == 1
    assert f"| skin tone | {group} | 1 | {row['frames']} |" in text
    assert "No group has 5 people" in text
    # the data does not say which dataset it is
    assert "Which data it was trained on is not told." in text
    assert "None" not in text
    assert "nan" not in text.split("```")[0]


def test_a_card_that_lacks_something_is_not_sent(client, hub, trained, tmp_path):
    one_sentence(client.hiva("push", trained.folder, "org/bare", token=ALICE), "must state a license", "--license")
    folder = tmp_path / "edited"
    shutil.copytree(trained.folder, folder)
    assert client.hiva("card", folder, "org/edited", "--license", "mit", token=ALICE).code == 0
    card = folder / "README.md"
    text = card.read_text()
    card.write_text(text.replace("## Consent", "## Something"))
    one_sentence(client.hiva("push", folder, "org/edited", token=ALICE), "lacks Consent")
    results = json.loads((folder / "results.json").read_text())
    results["metrics"]["mean_auc"] = 0.99
    (folder / "results.json").write_text(json.dumps(results))
    card.write_text(text)
    one_sentence(client.hiva("push", folder, "org/edited", token=ALICE), "must tell the figures of results.json")
    card.write_text("---\nlicense: [\n---\n")
    one_sentence(client.hiva("push", folder, "org/edited", token=ALICE), "valid YAML")
    for repo in ("org/bare", "org/edited"):
        assert not hub.store.exists("models", repo)


def test_the_code_of_a_model_card_runs(client, hub, trained, crops, place, tmp_path):
    client.hiva("push", trained.folder, "org/snippets", "--license", "mit", token=ALICE)
    card = ModelCard(hub.store.blob_path(files_of(hub, "org/snippets")["README.md"]["sha256"]).read_text())
    with_package, alone = (part.split("```")[0] for part in card.text.split("```python\n")[1:])
    shutil.copy(crops[0], tmp_path / "face.jpg")
    here = f"import os; os.chdir({str(tmp_path)!r})\n"
    done = client.python(here + with_package)
    assert done.code == 0, done.err
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", f"{here}import sys; sys.modules['hiva_hf'] = None\n{alone}"],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert set(eval(run.stdout.splitlines()[-1])) == {"AU12", "AU4", "AU6"}


def test_consent_is_told_of_those_only_of_whom_it_is_known():
    assert "agreed" in consent_of(["BP4D"])
    assert "footage of public videos" in consent_of(["Aff-Wild2"])
    assert "People of Aff-Wild2 agreed" not in consent_of(["Aff-Wild2"])
    assert "Whether the people of my lab agreed" in consent_of(["my lab"])
    both = consent_of(["BP4D", "rendered faces"])
    assert "People of BP4D agreed" in both
    assert "Nobody is seen in rendered faces." in both
    assert "rendered faces agreed" not in both


def test_what_a_base_saw_is_not_claimed(trained, tmp_path):
    folder = tmp_path / "tuned"
    shutil.copytree(trained.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "data": None, "checkpoint": "org/base"}))
    upload = model_upload(folder, "org/tuned", "mit")
    text = (upload.folder / "README.md").read_text()
    upload.close()
    assert "Nobody is seen in the" not in text
    assert "Who is seen in the data of `org/base`" in text
    assert "The data of `org/base`" in text
    assert "whom the training never saw" not in text
    assert "whether `org/base`, with which it began, did is not told" in text
    assert "whom the training never saw" in protocol_of(results)
    assert "org/base" not in terms_of(["BP4D"])


def test_a_forged_row_of_the_table_is_found_and_named(trained):
    results = json.loads((trained.folder / "results.json").read_text())
    upload = model_upload(trained.folder, "org/x", "mit")
    text = (upload.folder / "README.md").read_text()
    upload.close()
    assert card_problems(text, "model", results) == []
    row = next(line for line in text.splitlines() if line.startswith("| **mean**"))
    forged = text.replace(row, "| **mean** | | " + " | ".join(["0.990"] * (row.count("|") - 3)) + " |")
    (problem,) = card_problems(forged, "model", results)
    assert "its table says 0.990 for" in problem
    assert "Delete" not in problem
    # figures of one's own, where there is no record
    assert card_problems(forged, "model", {}) == []


def test_a_figure_that_is_no_number_is_one_sentence(trained):
    results = json.loads((trained.folder / "results.json").read_text())
    upload = model_upload(trained.folder, "org/x", "mit")
    card = ModelCard.load(upload.folder / "README.md")
    upload.close()
    entry = card.data.eval_results[0]
    entry.metric_value = "high"
    (problem,) = card_problems(str(card), "model", results)
    assert f"it says high for {entry.metric_name}" in problem


def test_a_card_with_blanks_is_kept_and_not_sent(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    upload = model_upload(folder, "org/x", "mit")
    text = (upload.folder / "README.md").read_text().replace("## Bias", "## Bias\n\n[More Information Needed]")
    upload.close()
    (folder / "README.md").write_text(text)
    upload = model_upload(folder, "org/x", "mit")
    sent = (upload.folder / "README.md").read_text()
    upload.close()
    assert sent == text
    assert any("still has blanks" in problem for problem in upload.problems)


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "1 seconds"), (95, "95 seconds"), (600, "10 minutes"), (9000, "2.5 hours")]
)
def test_cost_is_told_in_a_unit_that_fits(seconds, said):
    assert cost_of({"seconds": seconds, "machine": "a machine"}).startswith(f"{said} on a machine")


def test_of_a_bank_the_card_tells_what_a_reader_needs_and_of_none_that_there_is_none():
    model, processor = hiva_small(["AU1", "AU12"])
    bank = {**processor.description_bank, "provenance": {"generator": "a model", "where": "llm.inside.example"}}
    assert "Generator: a model" in _bank_of(bank, model.config)
    assert "inside" not in _bank_of(bank, model.config)
    model.config.text_source = "random"
    assert _bank_of(bank, model.config).startswith("There is no text")


def group(people, frames, **figures):
    return {"people": people, "frames": frames, **figures}


def rows_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"][2:]


def test_measured_numbers_are_bands_and_a_person_is_no_group():
    tones = {"0.05": 0.61, "0.31": 0.3, "0.4": 0.2, "0.5": 0.7, "0.94": 0.6, "0.95": 0.4}
    table = group_table({"groups": {"skin_tone": {name: group(1, 25, mean_f1=f1) for name, f1 in tones.items()}}})
    assert rows_of(table) == [
        ["skin tone", "0.05 to 0.35", "2", "50"],
        ["skin tone", "0.35 to 0.65", "2", "50"],
        ["skin tone", "0.65 to 0.95", "2", "50"],
    ]
    assert "0.61" not in table
    assert "**No group has 5 people, so this test says nothing of bias.**" in table
    assert "in 3 bands of equal width" in table
    assert group_table({"groups": {}}) == ""


def test_figures_are_shown_of_groups_that_are_large_enough():
    sexes = {"f": group(5, 100, mean_f1=0.5, mean_auc=0.7), "m": group(4, 80, mean_f1=0.4, mean_auc=0.6)}
    # skin types are groups as they are, and what was cut before stays
    types = {"1": group(6, 60, mean_f1=0.5, mean_auc=0.8), "6": group(6, 60, mean_f1=0.4, mean_auc=None)}
    ages = {"20 to 40": group(9, 90, mean_f1=0.1, mean_auc=0.2)}
    table = group_table({"groups": {"sex": sexes, "skin_tone": types, "age": ages}})
    assert rows_of(table) == [
        ["sex", "f", "5", "100", "0.500", "0.700"],
        ["sex", "m", "4", "80", "too few people", "too few people"],
        ["skin tone", "1", "6", "60", "0.500", "0.800"],
        ["skin tone", "6", "6", "60", "0.400", "-"],
        ["age", "20 to 40", "9", "90", "0.100", "0.200"],
    ]
    assert "Groups of fewer than 5 people have no figure" in table
    assert "says nothing of bias" not in table
    # means of parts make no mean of the whole
    table = group_table({"groups": {"age": {str(age): group(3, 10, mean_f1=0.9) for age in (20, 21, 60, 61, 62)}}})
    assert rows_of(table)[0][1:] == ["20 to 34", "6", "20"]
    assert "0.9" not in table
    assert "A dash" in table


def test_figures_of_chance_are_told_beside_them():
    metrics = {
        "mean_f1": 0.45, "mean_always_positive_f1": 0.46, "mean_auc": 0.54,
        "f1_AU1": 0.5, "always_positive_f1_AU1": 0.4, "auc_AU1": 0.56,
        "f1_AU4": 0.4, "always_positive_f1_AU4": 0.4, "auc_AU4": 0.3, "auc_AU6": None,
    }  # fmt: skip
    said = near_chance({"metrics": metrics}, ["AU1", "AU4", "AU6"])
    assert "The mean F1, 0.450, is not above that of calling every frame active, 0.460" in said
    assert "The mean AUC, 0.540, is within 0.05 of chance, 0.5." in said
    assert "AUC less than 0.05 above chance: AU4." in said
    assert "F1 not above that of calling every frame active: AU4." in said
    assert "is below chance" in near_chance({"metrics": {"mean_auc": 0.4}}, [])
    assert "ICC less than 0.05 above chance: AU1." in near_chance({"metrics": {"icc_AU1": 0.01}}, ["AU1"])
    good = {"mean_f1": 0.6, "mean_always_positive_f1": 0.5, "mean_auc": 0.8, "auc_AU1": 0.8}
    assert near_chance({"metrics": good}, ["AU1"]) == near_chance({}, ["AU1"]) == ""


def test_a_card_says_near_its_figures_that_they_are_chance(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    results["metrics"] |= {"mean_auc": 0.5, "mean_f1": 0.1, "mean_always_positive_f1": 0.2}
    (folder / "results.json").write_text(json.dumps(results))
    upload = model_upload(folder, "org/x", "mit")
    text = (upload.folder / "README.md").read_text()
    upload.close()
    said = text.split("## Results")[1].split("| AU |")[0]
    assert "by F1 this detector tells nothing" in said
    assert "within 0.05 of chance" in said


def test_what_nobody_looked_for_is_not_said_to_be_missing_in_the_data(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    for groups, said in ((None, "Not measured. Measure it"), ({}, "Not measured: the tested data tells neither")):
        results.pop("groups", None)
        record = results if groups is None else {**results, "groups": groups}
        (folder / "results.json").write_text(json.dumps(record))
        upload = model_upload(folder, "org/x", "mit")
        assert said in (upload.folder / "README.md").read_text()
        upload.close()


def test_no_line_of_code_is_wider_than_a_card(trained, tmp_path):
    model, processor = hiva_small_text(["AU1", "AU12"], au_projection="text")
    save_detector(model, processor, tmp_path / "open")
    upload = model_upload(tmp_path / "open", "org/a-name-of-some-length", "mit")
    texts = [(upload.folder / "README.md").read_text(), (CARDS / "au_f1" / "README.md").read_text()]
    upload.close()
    blocks = [block.split("```")[0] for text in texts for block in text.split("```python")[1:]]
    assert len(blocks) == 4
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 100


def test_calibration_is_told_with_whom_and_what_it_did():
    model, processor = hiva_small(["AU1", "AU12"])
    limits = processor.limits(["AU1", "AU12"])
    assert calibration_of(model.config, limits, {}, {}).startswith("None: scores are the sigmoid")
    model.config.calibration_temperatures, model.config.calibration_biases = [2.0, 1.0], [0.1, 0.0]
    report = {
        "AU1": {"frames": 75.0, "brier_before": 0.3, "brier_after": 0.2, "error_before": 0.2, "error_after": 0.1},
        "AU12": {"frames": 70.0, "brier_before": 0.1, "brier_after": 0.1, "error_before": None, "error_after": 0.1},
    }
    said = calibration_of(model.config, {"AU1": 0.31, "AU12": 0.5}, report, {"people": {"validation": 3}})
    assert "On the 3 validation people (75 images), whom no weight was learned from" in said
    assert "the threshold of the best F1 there (0.31 to 0.5)" in said
    assert "the mean Brier score from 0.200 to 0.150" in said
    assert "What it did to F1 was not measured." in said
    assert said.endswith("or scores ran against the labels: AU12.")
    report["AU1"] |= {"f1_before": 0.4, "f1_after": 0.5}
    said = calibration_of(model.config, limits, report, {})
    assert "the mean F1 from 0.400 to 0.500: on others expect less" in said
    assert "not measured" not in said
    model.config.problem_type = "regression"
    assert calibration_of(model.config, limits, report, {}) == ""


def test_the_cut_of_the_crops_is_told():
    eyes = {"left_eye": [0.25, 0.2], "right_eye": [0.6, 0.25], "nose": [0.5, 0.5]}
    template = {**eyes, "left_mouth": [0.3, 0.8], "right_mouth": [0.7, 0.7]}
    processor = HiVAImageProcessorPil(size={"height": 64, "width": 64}, face_template=template)
    sample = alignment_of_crops(processor, {"data": None, "datasets": []})
    assert "A crop is 64 x 64 pixels" in sample
    assert "left eye (0.25, 0.2), right eye (0.6, 0.25), nose (0.5, 0.5)" in sample
    assert "from the renderer" in sample
    assert "128 x 128 pixels, not cut before" in sample
    assert "is not told" in alignment_of_crops(processor, {"data": "faces.parquet", "datasets": []})
    assert "is not told" in alignment_of_crops(processor, {})
    cut = {"alignment": "detect", "detector": "haar", "size": 256, "margin": 1.25, "quality": 95}
    said = alignment_of_crops(processor, {"data": "faces", "alignment": cut})
    assert "found by `haar`, and stored with 256 pixels a side, 1.25 times as wide as a crop of the model" in said
    assert "renderer" not in said


@pytest.mark.parametrize("make", [hiva_small, hiva_small_text])
def test_a_card_of_an_open_vocabulary_model_tells_how_others_are_asked_and_its_code_runs(
    make, client, hub, crops, tmp_path
):
    torch.manual_seed(0)
    name, tower = f"open-{make.__name__.replace('_', '-')}", make is hiva_small_text
    model, processor = make(["AU1", "AU12"], au_projection="text")
    save_detector(model, processor, tmp_path / name)
    assert client.hiva("push", tmp_path / name, f"org/{name}", "--license", "mit", token=ALICE).code == 0
    text = hub.store.blob_path(files_of(hub, f"org/{name}")["README.md"]["sha256"]).read_text()
    said = text.split("## Other action units")[1].split("## Results")[0]
    assert "never trained and is not calibrated" in " ".join(said.split())
    assert ("descriptions=asked" in said) == tower
    assert ("fetched for that" in said) == (not tower)
    shutil.copy(crops[0], tmp_path / "face.jpg")
    here = f"import os; os.chdir({str(tmp_path)!r})\n"
    if not tower:
        return
    command = shlex.split(said.split("```\n")[1].replace("\\\n", ""))
    assert command[0] == "hiva"
    client.python(here)
    done = client.hiva(*command[1:])
    assert done.code == 0, done.err
    asked = command[-1].split("=")[0]
    assert f"{asked} was asked for by description" in done.out
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    code = f"{here}import sys; sys.modules['hiva_hf'] = None\n{said.split('```python')[1].split('```')[0]}"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert set(eval(run.stdout.splitlines()[-1])) == {"AU1", "AU12", asked}


def test_intensities_beside_probabilities_are_told(tmp_path):
    for head, said in (
        (True, "that it is there and its intensity from 0 to 5. The model"),
        (False, "there. The model"),
    ):
        save_detector(*hiva_small(["AU1", "AU12"], intensity_head=head), tmp_path / str(head))
        upload = model_upload(tmp_path / str(head), "org/x", "mit")
        text = (upload.folder / "README.md").read_text()
        upload.close()
        assert said in text


def test_a_model_of_its_own_action_units_alone_tells_of_no_others(trained):
    upload = model_upload(trained.folder, "org/x", "mit")
    text = (upload.folder / "README.md").read_text()
    upload.close()
    assert "Other action units" not in text


def test_a_folder_is_loaded_once(trained, monkeypatch):
    loaded = []

    def load(folder, **options):
        loaded.append(str(folder))
        return load_detector(folder, **options)

    monkeypatch.setattr("hiva_hf.checkpoint.load_detector", load)
    upload = model_upload(trained.folder, "org/x", "mit")
    upload.close()
    # the other one is what was saved anew
    assert len(loaded) == 2
    assert loaded.count(str(upload.folder)) == 1


def test_what_code_of_ours_names_stands_once():
    from hiva_hf.hub import measured

    source = Path(measured.__file__).read_text()
    assert source.count(measured.POSITIVE_KEY) == 1
    assert source.count(f'"{measured.RENDERED}"') == 1
