"""Cards: what they say, what they do not claim, and what keeps one from being sent."""

# fixtures are imported by name
# ruff: noqa: F811
import json
import os
import shutil
import subprocess
import sys

import pytest
from hub_fixtures import ALICE, client, files_of, hub, logits, no_cuts, one_sentence, place  # noqa: F401
from huggingface_hub import ModelCard

from hiva_hf import hiva_small
from hiva_hf.hub import card_problems, model_upload
from hiva_hf.hub.cards import _bank_of
from hiva_hf.hub.measured import cost_of, protocol_of
from hiva_hf.hub.sources import consent_of, terms_of


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
    # the tested data tells skin tones
    assert "Groups are those the data tells of" in text
    for group, row in results["groups"]["skin_tone"].items():
        assert f"| skin tone | {group} | {row['people']} | {row['frames']} |" in text
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
    assert "generator: a model" in _bank_of(bank, model.config)
    assert "inside" not in _bank_of(bank, model.config)
    model.config.text_source = "random"
    assert _bank_of(bank, model.config).startswith("There is no text")
