"""More processes, fewer, or parts of a model: one training, whatever it runs on."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from safetensors.torch import load_file

from hiva_hf import hiva_small, hiva_small_text
from hiva_hf.processes import launched, run_together

EXAMPLES = Path(__file__).parent.parent / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# faces of a step, of an epoch of 43, and steps of two epochs
FACES, EPOCH, STEPS = 8, 43, 12

SCRIPT = """
import json, os, sys
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from conftest import AUS, FUSION, SIDE, SWIN, text_config
from safetensors.torch import save_file
from hiva_hf import HiVAConfig, HiVAForImageClassification, HiVAImageProcessorPil, HiVAProcessor
from hiva_hf.data import FaceAugmentation, load_prepared, stream_prepared
from hiva_hf.descriptions import load_bank
from hiva_hf.presets import bank_tokenizer
from hiva_hf.training import build_trainer, share_batch, training_arguments, whole_weights

out, data, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.set_num_threads(1)
if options.get("shard_on_cpus"):
    # accelerate reads the plugin on GPUs alone; torch shards on any device
    begin = AcceleratorState.__init__
    def sharded(self, *args, fsdp_plugin=None, **kwargs):
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
    AcceleratorState.__init__ = sharded
torch.manual_seed(0)
tokenizer = bank_tokenizer(load_bank(), vocab_size=300)
processor = HiVAProcessor(
    HiVAImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer, load_bank().select(AUS).to_dict()
)
towers = {"vision_config": {**SWIN, "drop_path_rate": 0.0}, "text_config": text_config(300)}
fusion = {**FUSION, "hidden_dropout_prob": 0.0, **options.get("fusion", {})}
model = HiVAForImageClassification(HiVAConfig(**towers, id2label=dict(enumerate(AUS)), **fusion))
# a tokenizer that is made anew numbers its words anew
ids = torch.randint(1, 300, (3, 2, 6), generator=torch.Generator().manual_seed(0))
model.set_descriptions(ids, torch.ones_like(ids))
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
faces = {"streamed": stream_prepared, "loaded": load_prepared}[options.get("how", "loaded")](data, aus=AUS)
arguments = training_arguments(
    out, num_train_epochs=2, per_device_train_batch_size=options.get("batch", 8), use_cpu=True, seed=5, optim="sgd",
    learning_rate=0.1, lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=0.0, eval_strategy="no",
    save_strategy="steps" if options.get("save") else "no", save_steps=options.get("save", 1), save_total_limit=None,
    load_best_model_at_end=False, disable_tqdm=True,
)
arguments = share_batch(arguments, options.get("faces", 8))
still = FaceAugmentation(rotation=0, scale=0, shift=0, flip=0, colour=0, blur=0, erase=0)
order = options.get("order")
trainer = build_trainer(
    model, processor, {"train": faces.select(range(43))}, arguments, still, order=order and tuple(order)
)
# a frame says who it is by a pixel
seen = []
def keep(module, args, kwargs):
    labels = kwargs["labels"]
    seen.append([[*face[:, 7, 7].tolist(), *row] for face, row in zip(kwargs["pixel_values"], labels.tolist())])
if not options.get("shard_on_cpus"):
    hook = model.register_forward_pre_hook(keep, with_kwargs=True)
trainer.train(resume_from_checkpoint=options.get("resume"))
weights = whole_weights(trainer)
result = {
    "world": arguments.world_size, "steps": trainer.state.global_step, "seen": seen,
    "accumulation": arguments.gradient_accumulation_steps,
    "blocks": sorted({type(m).__name__ for m in model.modules() if type(m).__name__.startswith("FSDP")}),
}
if arguments.process_index == 0:
    weights = model.state_dict() if weights is None else weights
    # what gloo gathers may still be under way
    weights = {name: getattr(value, "wait", lambda value=value: value)() for name, value in weights.items()}
    save_file({name: value.clone().contiguous() for name, value in weights.items()}, f"{out}.safetensors")
open(f"{out}.{arguments.process_index}.json", "w").write(json.dumps(result))
if arguments.world_size > 1:
    torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", **more}


def train(out, data, launch=(), processes=1, **options):
    """What each process saw, and the weights at the end."""
    out.parent.mkdir(exist_ok=True)
    script = out.parent / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, *launch, str(script), str(out), str(data), json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    told = [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(processes)]
    assert [result["world"] for result in told] == [processes] * processes
    assert told[0]["steps"] == STEPS
    return told, load_file(f"{out}.safetensors")


def steps_of(told):
    """The faces of each step, of all processes; filling, of which nothing is coded, does not count."""
    accumulation, steps = told[0]["accumulation"], []
    # the last step of an epoch may have fewer batches
    an_epoch = -(-EPOCH // (FACES // accumulation))
    for place, together in enumerate(zip(*(result["seen"] for result in told), strict=True)):
        if place % an_epoch % accumulation == 0:
            steps.append(Counter())
        steps[-1].update(tuple(face) for batch in together for face in batch if any(v != -100 for v in face[3:]))
    return steps


def difference(first, second):
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    """One process from begin to end, with checkpoints in the midst of epochs."""
    out = tmp_path_factory.mktemp("alone") / "run"
    return out, *train(out, shards, how="streamed", save=2, order=[1, 8])


def test_one_process_sees_each_face_once_an_epoch(alone):
    steps = steps_of(alone[1])
    assert len(steps) == STEPS
    for epoch in (steps[:6], steps[6:]):
        seen = sum(epoch, Counter())
        assert len(seen) == EPOCH
        assert set(seen.values()) == {1}


def test_two_processes_go_on_for_one(shards, alone, tmp_path):
    out, told, weights = alone
    resumed, after = train(
        tmp_path / "run", shards, TORCHRUN, 2, how="streamed", order=[1, 8], resume=str(out / "checkpoint-4")
    )
    assert steps_of(resumed) == steps_of(told)[4:]
    assert difference(after, weights) < 1e-5


def test_one_process_goes_on_for_two(shards, alone, tmp_path):
    _, weights = train(tmp_path / "both" / "run", shards, TORCHRUN, 2, how="streamed", order=[2, 4], batch=4, save=2)
    # in an order of its own
    assert difference(weights, alone[2]) > 1e-3
    resumed, after = train(
        tmp_path / "one" / "run", shards, how="streamed", order=[2, 4], batch=4,
        resume=str(tmp_path / "both" / "run" / "checkpoint-8"),
    )  # fmt: skip
    assert resumed[0]["accumulation"] == 2
    assert difference(after, weights) < 1e-5


def test_two_processes_train_what_one_trains(shards, tmp_path):
    one, weights = train(tmp_path / "one" / "run", shards)
    two, others = train(tmp_path / "two" / "run", shards, TORCHRUN, 2)
    assert steps_of(one) == steps_of(two)
    assert difference(weights, others) < 1e-5


def test_a_model_in_parts_trains_as_a_whole_one(shards, tmp_path):
    launch = ("-m", "accelerate.commands.launch", "--config_file", str(EXAMPLES / "fsdp.yaml"))
    told, weights = train(tmp_path / "run", shards, launch, 2, shard_on_cpus=True)
    assert {"FSDPHiVADDCA", "FSDPHiVACDCA", "FSDPSwinStage", "FSDPBertLayer"} <= set(told[0]["blocks"])
    _, whole = train(tmp_path / "whole" / "run", shards)
    assert difference(weights, whole) < 1e-5


def test_blocks_that_are_not_there_are_not_asked_for(shards, tmp_path):
    for model in (*hiva_small(["AU1"])[:1], *hiva_small_text(["AU1"])[:1]):
        there = {type(module).__name__ for module in model.modules()}
        assert set(model._no_split_modules) <= there


def test_configurations_are_accelerates():
    for name in ("fsdp", "deepspeed"):
        config = ClusterConfig.from_yaml_file(str(EXAMPLES / f"{name}.yaml"))
        assert (config.distributed_type, config.num_processes) == (name.upper(), 2)
    assert config.deepspeed_config["deepspeed_config_file"] == "examples/deepspeed.json"
    assert HfDeepSpeedConfig(str(EXAMPLES / "deepspeed.json")).is_zero2()


def launch(tmp_path, *launch, **variables):
    options = ["train", "-o", tmp_path / "run", "--epochs", 1, "--batch-size", 32, "--workers", 0, "--aus", "12"]
    command = [sys.executable, *launch, "-m", "hiva_hf.cli", *map(str, options)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(**variables), check=False)
    assert not (tmp_path / "run").exists()
    return run


def test_a_launch_that_starts_one_process_is_refused(tmp_path):
    run = launch(tmp_path, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    assert run.returncode != 0
    assert "error: `accelerate launch` must start the processes it was told of; it started one" in run.stderr


def test_parts_that_accelerate_does_not_make_are_refused(tmp_path):
    run = launch(tmp_path, "-m", "accelerate.commands.launch", "--config_file", str(EXAMPLES / "fsdp.yaml"))
    assert run.returncode != 0
    assert "error: `args` must train as `accelerate launch` was told, by FSDP; here it would be MULTI_CPU" in run.stderr


@pytest.mark.parametrize("kind", ["OMPI_COMM_WORLD_{}", "PMI_{}"])
def test_mpirun_is_known_by_what_it_tells(monkeypatch, kind):
    monkeypatch.setenv(kind.format("SIZE"), "4")
    monkeypatch.setenv(kind.format("RANK"), "3")
    assert (launched().rank, launched().world_size) == (3, 4)


def add(number, count, much):
    if much < 0:
        raise ValueError(f"`much` must be at least 0; got {much}.")
    return number * count + much


def test_processes_together():
    assert run_together(add, 2, 5) == [5, 7]
    with pytest.raises(ValueError, match="`much` must be at least 0; got -1"):
        run_together(add, 2, -1)
    with pytest.raises(ChildProcessError, match="number 1 of 1 was ended with exit code 7"):
        run_together(leave, 1)


def leave(number, count):
    os._exit(7)
