"""Two real processes train one detector: descriptions are no part of the batch, and every label is counted once."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, sys
import torch
from conftest import AUS, FUSION, SWIN, SIDE, text_config
from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.data import load_rendered
from hiva_hf.descriptions import load_bank
from hiva_hf.presets import bank_tokenizer
from hiva_hf.training import build_trainer, training_arguments

torch.set_num_threads(1)
torch.manual_seed(0)
tokenizer = bank_tokenizer(load_bank(), vocab_size=300)
processor = HiVAProcessor(
    HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer, load_bank().select(AUS).to_dict()
)
towers = {"vision_config": SWIN, "text_config": text_config(len(tokenizer))}
config = HiVAConfig(**towers, id2label=dict(enumerate(AUS)), **FUSION)
model = HiVAForImageClassification(config)
model.set_descriptions(**processor.tokenize_descriptions(num_descriptions=2))
data = load_rendered(aus=AUS)
splits = {"train": data.select(range(16)), "validation": data.select(range(20, 31))}
arguments = training_arguments(
    sys.argv[1], max_steps=2, per_device_train_batch_size=4, per_device_eval_batch_size=4, use_cpu=True,
    eval_strategy="no", save_strategy="no", load_best_model_at_end=False, disable_tqdm=True,
)
trainer = build_trainer(model, processor, splits, arguments)
trainer.train()
predicted = trainer.predict(trainer.eval_dataset)
total = sum(p.double().sum().item() for p in model.parameters())
world = torch.distributed.get_world_size()
sums = [None] * world
torch.distributed.all_gather_object(sums, total)
if arguments.process_index == 0:
    result = {"world": world, "steps": trainer.state.global_step, "rows": len(predicted.predictions), "sums": sums}
    open(sys.argv[1] + ".json", "w").write(json.dumps(result))
# A gloo thread that frees its last tensor while Python shuts down aborts the process (torch 2.13, 2 runs in 25), so
# both ranks meet here and leave without that shutdown.
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)
"""


def test_torchrun_trains_on_two_processes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path / "run")], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads((tmp_path / "run.json").read_text())
    assert result["world"] == 2
    assert result["steps"] == 2
    assert result["rows"] == 11
    assert abs(result["sums"][0] - result["sums"][1]) < 1e-6
