#!/bin/bash
# What one would guess: an Accelerator that is given an FSDP 2 plugin shards the model, or says that it cannot.
# What is true (accelerate 1.15.0): with processes on CPUs (gloo) the plugin is dropped without a word. The model is wrapped in
#   DistributedDataParallel, every process holds all of it, and is_fsdp2 is False. torch's own fully_shard does shard on the same
#   processes: half of the rows of each weight on each of two.
# Date: 2026-11-29. Source: this run.
# Why it matters: a test on CPUs of "this LoRA training runs sharded" proves nothing about sharding; saving, resuming and merging of
#   DTensors are never reached. Test with fully_shard itself, or assert the type of the parameters.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 numpy==2.4.6 accelerate==1.15.0
cat > "$place/shard.py" <<'PYTHON'
import accelerate
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

accelerator = Accelerator(cpu=True, fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))
assert accelerator.num_processes == 2
prepared = accelerator.prepare(torch.nn.Linear(8, 8, bias=False))
plain = type(prepared).__name__, tuple(next(prepared.parameters()).shape), accelerator.is_fsdp2
sharded = fully_shard(torch.nn.Linear(8, 8, bias=False), mesh=init_device_mesh("cpu", (2,)))
weight = next(sharded.parameters())
own = type(weight).__name__, tuple(weight.to_local().shape)
if accelerator.is_main_process:
    print("accelerate", accelerate.__version__, "torch", torch.__version__)
    print("prepared by accelerate:", *plain)
    print("by torch's fully_shard:", *own)
assert plain == ("DistributedDataParallel", (8, 8), False), "the behaviour has changed"
assert own == ("DTensor", (4, 8)), "the behaviour has changed"
torch.distributed.destroy_process_group()
PYTHON
export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1
"$place/venv/bin/torchrun" --nproc_per_node 2 --rdzv_backend c10d --rdzv_endpoint 127.0.0.1:0 "$place/shard.py" 2>/dev/null
