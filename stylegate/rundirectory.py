"""The name of a training run's directory, `<name>-<family>-s<seed>-<hash8>`: the same arguments give the same name.

The hash covers everything that changes the trained weights, and so also the precision that the run computes in. Where
the precision is `auto`, the device decides it (stylegate/hardware.py): the same arguments name one run on a GPU and
another run on a CPU.
"""

from stylegate.config import Config, config_as_dict, run_or_batch_name
from stylegate.configgroups import configured_lora_alpha_or_rank
from stylegate.files import canonical_sha256

# Keys of `train` that leave the weights as they are: retention, logging, and max_steps while the rate is constant.
NOT_IN_WEIGHTS = {
    "max_steps",
    "checkpoint_every",
    "keep_newest",
    "keep_best",
    "evaluate_every",
    "num_samples",
    "preview_steps",
    "evaluation_share",
    "selection_margin",
    "scales",
}


def run_directory_name(config: Config) -> str:
    """The directory's name below checkpoints/. Raises nothing; a CUDA device that is missing is reported elsewhere."""
    from stylegate.hardware import choose_fp32_or_bf16  # torch: not for verbs that only import this file

    left_out = NOT_IN_WEIGHTS if config.train.schedule == "constant" else NOT_IN_WEIGHTS - {"max_steps"}
    train = {key: value for key, value in config_as_dict(config.train).items() if key not in left_out}
    lora = config_as_dict(config.lora) | {"alpha": configured_lora_alpha_or_rank(config.lora)}
    weights = [
        config.brand,
        config.base,
        config_as_dict(config.family),
        lora,
        train,
        choose_fp32_or_bf16(config.hardware),
    ]
    if config.objective.name != "denoising":  # whose runs keep the names that they had before there were others
        weights += [config_as_dict(config.objective), config.preferences]
    if config.draw_base is not None:  # what is handed out was chosen by its pictures
        weights += [config.draw_base]
    return f"{run_or_batch_name(config)}-{config.family.name}-s{config.train.seed}-{canonical_sha256(weights)[:8]}"
