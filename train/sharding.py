"""A base that fits no single card: its frozen weights are split among the cards of a machine (torch's FSDP 2).

The LoRA is not split. It is small, and whole in each process: optimizer, averaged weights, saved states and the files
that are handed out are those of any run, and only its gradients are exchanged. Of the base each process keeps its part
of every weight; a block of the denoiser is gathered when it is computed and given up after it. So **all processes must
call the denoiser equally often**, in drawing and in evaluations too (`padded_work_indices_of_process`).

accelerate's own FSDP is not used: it would split the LoRA as well, and with processes on CPUs it silently becomes DDP
(findings/accelerate_fsdp2_on_cpu_is_ddp.sh), so that no test on CPUs would say anything of it.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from stylegate.config import Config
from stylegate.errors import ConfigError

# What `accelerate launch` tells its processes of kinds of training that its config may name.
OTHER_KINDS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}


def require_supported_accelerate_config() -> None:
    """Raise ConfigError if the accelerate config of this launch names a kind of training that is not done here."""
    if named := [kind for name, kind in OTHER_KINDS.items() if os.environ.get(name, "").lower() in ("1", "true")]:
        raise ConfigError(
            f"the accelerate config of this launch asks for {' and '.join(named)}, which training does not use",
            next_step="a config of conf/hardware/accelerate/; for a base that fits no single card hardware.shard=true "
            "beside it.",
        )


def require_several_processes_if_sharded(config: Config, accelerator: Accelerator) -> None:
    """Raise ConfigError if the base is to be split, and this is the only process."""
    if config.hardware.shard and accelerator.num_processes == 1:
        raise ConfigError(
            "hardware.shard=true splits the base among processes, and there is one",
            next_step="accelerate launch --config_file conf/hardware/accelerate/two_cards.yaml -m train ..., or "
            "hardware.shard=false.",
        )


def shard_base(denoiser: Any, device: torch.device, patience: timedelta) -> None:
    """Split the frozen weights of a denoiser among the processes of this machine, in place; what is trained stays
    whole. All of it is moved to `device`, one block after the other.

    Where each machine has one process, they are split among all machines. A process that waits longer than `patience`
    for the others gives up.
    """
    world = torch.distributed.get_world_size()
    own = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # the processes of this machine, from the launcher
    group, _ = torch.distributed.new_subgroups(own if own > 1 else world, timeout=patience)
    mesh = DeviceMesh.from_group(group, device.type)
    trained = {parameter for parameter in denoiser.parameters() if parameter.requires_grad}
    for parameter in trained:
        parameter.data = parameter.data.to(device)
    blocks = [module for module in denoiser.modules() if type(module).__name__ in denoiser._no_split_modules]
    for module in (*reversed(blocks), denoiser):  # inner ones first
        # The outermost weights are given up too: else they would stay where evaluations leave them, gathered.
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=trained)


def is_sharded_among_processes(denoiser: nn.Module) -> bool:
    """Whether the weights of a denoiser are split among processes."""
    return isinstance(denoiser, FSDPModule)


def average_gradients(parameters: Sequence[Tensor], accelerator: Accelerator) -> None:
    """Replace the gradient of each parameter by its mean over all processes: one message for all of them."""
    gradients: list[Any] = [parameter.grad for parameter in parameters]
    mean: Any = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for parameter, part in zip(parameters, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        parameter.grad = part.view_as(parameter)


def padded_work_indices_of_process(count: int, accelerator: Accelerator) -> list[int | None]:
    """The indices in [0, count) that this process works on, as many as each other process has; None stands for work
    that is done for the others' sake alone.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    return [i if i < count else None for i in range(rank, -(-count // world) * world, world)]
