#!/bin/bash
# What one would guess: `accelerate launch --cpu --num_processes 2` runs two processes over gloo, as the words say; and two
#   processes of torchrun on a machine without a GPU know of each other.
# What is true (accelerate 1.15.0): the first runs one process, and says nothing of it. Under torchrun there are two, and each
#   Accelerator is "process 0 of 1": both are the main process and both write. Two that know of each other come only with
#   ACCELERATE_USE_CPU=true in the environment, under torchrun or, of all flags, under `--multi_gpu`.
# Date: 2026-11-29. Source: this run; accelerate/commands/launch.py, accelerate/state.py (_prepare_backend).
# Why it matters: a distributed LoRA run that is tried on CPUs before the GPUs are paid for tests nothing distributed: not the
#   sharding of data, not the mean of gradients, not saving by one rank. It ends well, with half the batch, or written twice.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 accelerate==1.15.0 numpy==2.4.0
cat > "$place/who.py" <<'PYTHON'
from accelerate import Accelerator

accelerator = Accelerator()
print(f"process {accelerator.process_index} of {accelerator.num_processes}", flush=True)
PYTHON
cd "$place"
export HF_HOME="$place/cache" OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
"$place/venv/bin/python" -c 'import accelerate, torch; print("accelerate", accelerate.__version__, "torch", torch.__version__)'
says() {  # the words of a command, what is right today, then the command
    local words=$1 expected=$2 seen
    seen=$("${@:3}" "$place/who.py" 2>/dev/null | sort | paste -sd ';' | sed 's/;/; /g')
    echo "$words -> $seen"
    [ "$seen" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
}
accelerate="$place/venv/bin/accelerate" torchrun="$place/venv/bin/torchrun"
two="process 0 of 2; process 1 of 2"
says "accelerate launch --cpu --num_processes 2" "process 0 of 1" "$accelerate" launch --cpu --num_processes 2
says "torchrun --nproc_per_node 2" "process 0 of 1; process 0 of 1" "$torchrun" --standalone --nproc_per_node 2
export ACCELERATE_USE_CPU=true
says "the same with ACCELERATE_USE_CPU=true" "$two" "$torchrun" --standalone --nproc_per_node 2
says "accelerate launch --multi_gpu --num_processes 2, too" "$two" "$accelerate" launch --multi_gpu --num_processes 2
