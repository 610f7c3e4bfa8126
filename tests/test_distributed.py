"""Real processes train one detector: descriptions are no part of the batch, and every face is seen once."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
import torch
from conftest import AUS, FUSION, SWIN, SIDE, text_config
from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.data import FaceAugmentation, load_prepared, stream_prepared
from hiva_hf.descriptions import load_bank
from hiva_hf.presets import bank_tokenizer
from hiva_hf.training import build_trainer, predict_logits, training_arguments

out, data, how, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
torch.manual_seed(0)
tokenizer = bank_tokenizer(load_bank(), vocab_size=300)
processor = HiVAProcessor(
    HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer, load_bank().select(AUS).to_dict()
)
towers = {"vision_config": SWIN, "text_config": text_config(len(tokenizer))}
model = HiVAForImageClassification(HiVAConfig(**towers, id2label=dict(enumerate(AUS)), **FUSION))
model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=2))
faces = {"streamed": stream_prepared, "loaded": load_prepared}[how](data, aus=AUS)
splits = {"train": faces.select(range(43)), "validation": faces.select(range(50, 61))}
arguments = training_arguments(
    out, num_train_epochs=2, per_device_train_batch_size=4, per_device_eval_batch_size=4, use_cpu=True, seed=5,
    dataloader_num_workers=workers, eval_strategy="no", save_strategy="no", load_best_model_at_end=False,
    disable_tqdm=True,
)
still = FaceAugmentation(rotation=0, scale=0, shift=0, flip=0, colour=0, blur=0, erase=0)
trainer = build_trainer(model, processor, splits, arguments, still)
# a frame says who it is by a pixel: what went through the model is looked up there
seen = []
def keep(module, args, kwargs):
    labels = kwargs["labels"]
    seen.append([[*face[:, 7, 7].tolist(), *row] for face, row in zip(kwargs["pixel_values"], labels.tolist())])
hook = model.register_forward_pre_hook(keep, with_kwargs=True)
trainer.train()
hook.remove()
logits, labels = predict_logits(trainer, splits["validation"])
metrics = trainer.evaluate()
result = {
    "world": arguments.world_size, "steps": trainer.state.global_step, "seen": seen, "labels": labels.tolist(),
    "expected": splits["validation"]["labels"][:], "logits": len(logits), "metrics": len(metrics),
    "total": sum(p.double().sum().item() for p in model.parameters()),
}
open(f"{out}.{arguments.process_index}.json", "w").write(json.dumps(result))
# A gloo thread that frees its last tensor while Python shuts down aborts the process (torch 2.13, 2 runs in 25), so
# all ranks meet here and leave without that shutdown.
if arguments.world_size > 1:
    torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)
"""


def train(tmp_path, data, how, processes, workers):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [*(launch if processes > 1 else []), str(script), str(tmp_path / "run"), str(data), how, str(workers)]
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads((tmp_path / f"run.{rank}.json").read_text()) for rank in range(processes)]


def epochs_of(results):
    """How often each face was seen, an epoch at a time; filling, of which nothing is coded, does not count."""
    steps = results[0]["steps"] // 2
    epochs = []
    for epoch in range(2):
        batches = [batch for result in results for batch in result["seen"][epoch * steps : (epoch + 1) * steps]]
        faces = [tuple(face) for batch in batches for face in batch]
        epochs.append(Counter(face for face in faces if any(label != -100 for label in face[3:])))
    return epochs


def test_the_command_on_two_processes(shards, tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "hiva_hf.cli", "train"]
    options = ["--data", shards, "--epochs", 1, "--batch-size", 8, "--workers", 0, "--aus", "12,4", "--streaming"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *launch, "-o", str(tmp_path / "run"), *map(str, options), "--test-subjects", "S000"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    # each is said and written once
    for line in ("train: ", "Unseen subjects: S000", "Saved to"):
        assert run.stdout.count(line) == 1
    assert sum(line.startswith("epoch 1 of 1") for line in run.stderr.splitlines()) == 1
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]["mean_f1"] is not None
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.parametrize(("how", "workers"), [("streamed", 2), ("loaded", 0)])
def test_two_processes_see_what_one_sees(shards, tmp_path, how, workers):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone = train(tmp_path / "one", shards, how, 1, workers)
    both = train(tmp_path / "two", shards, how, 2, workers)
    assert [result["world"] for result in both] == [2, 2]
    # 43 faces by 4, and by 2 x 4
    assert alone[0]["steps"] == 2 * 11
    assert both[0]["steps"] == 2 * 6
    once = epochs_of(alone)
    assert [len(epoch) for epoch in once] == [43, 43]
    assert all(count == 1 for epoch in once for count in epoch.values())
    assert epochs_of(both) == once
    assert abs(both[0]["total"] - both[1]["total"]) < 1e-6
    for result in alone + both:
        assert result["labels"] == result["expected"]
        assert result["logits"] == 11
        assert result["metrics"] > 10
