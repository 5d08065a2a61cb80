"""The groups of the configuration: the keys family.* to engine.*.

`declare_config_field()` keeps default, help text and range of a value together: `--help`, the range check and the
golden list of keys (tests/golden/config_keys.txt) all read them from there.
"""

from dataclasses import dataclass, field
from typing import Any

SCHEDULES = ["constant", "cosine"]
FAMILY_NAMES = ["sd", "sdxl", "flux2", "zimage", "flux", "qwenimage", "sd3", "krea2", "qwenimage21"]
TEXT_TRAINED = ["sd", "sdxl"]  # families whose text encoders are CLIP's and get adapters where asked for
LORA_TARGETS = ["attention", "feed_forward", "convolution"]


def declare_config_field(
    default: Any, meaning: str, *, low: float | None = None, high: float | None = None, choices=(), multiple: int = 0
) -> Any:
    """A dataclass field with a default, its help text, and what it may be: a closed range, choices, multiples of a
    number.
    """
    metadata = {"help": meaning, "low": low, "high": high, "choices": tuple(choices), "multiple": multiple}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(kw_only=True, slots=True)
class FamilyConfig:
    """The keys `family.*`: the kind of base model, and the size of the pictures it draws."""

    name: str = declare_config_field(
        "sd", "The family of the base model: a file in stylegate/families/.", choices=FAMILY_NAMES
    )
    resolution: int | None = declare_config_field(
        None, "The side of a picture, in pixels. null: what the base was trained for.", low=16, high=4096, multiple=8
    )


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """The keys `lora.*`: which layers of the base get a LoRA, and of which rank and strength."""

    rank: int = declare_config_field(16, "The rank of the adapters.", low=1, high=1024)
    alpha: float | None = declare_config_field(
        None, "The strength is alpha / rank. null: the rank, so that it is 1.", low=1e-3, high=4096
    )
    rslora: bool = declare_config_field(
        False, "The strength is alpha / sqrt(rank): steadier at ranks of 64 and more. Programs read the files alike."
    )
    dora: bool = declare_config_field(
        False,
        "Train the lengths of weights too. It is slower, and programs read the files differently (docs/lora-files.md).",
    )
    targets: list[str] = declare_config_field(
        LORA_TARGETS, "The parts of the model that get an adapter.", choices=LORA_TARGETS
    )
    text_encoder: bool = declare_config_field(
        False, "Adapt CLIP too (SD, SDXL): new words are learned, old ones may be forgotten. Each step is slower."
    )


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """The keys `train.loss.*`: which noise levels training draws, and how each one's error counts."""

    density: str = declare_config_field(
        "uniform",
        "How noise levels are drawn. style: mostly those at which palette and line are decided.",
        choices=["uniform", "logit_normal", "shift", "style"],
    )
    density_mean: float = declare_config_field(
        0.0, "For logit_normal: above 0, levels with more noise.", low=-10.0, high=10.0
    )
    density_std: float = declare_config_field(1.0, "For logit_normal: the spread of the levels.", low=0.01, high=10.0)
    density_shift: float = declare_config_field(
        3.0, "For shift: above 1, levels with more noise.", low=0.01, high=100.0
    )
    min_snr_gamma: float | None = declare_config_field(
        None, "Gamma of min-SNR weights; 5 is usual. null: all levels count alike.", low=0.1, high=100.0
    )
    huber_delta: float | None = declare_config_field(
        None, "The error above which the loss is Huber's. null: squares.", low=1e-4, high=100.0
    )
    noise_offset: float = declare_config_field(
        0.0, "Random brightness added to the noise: 0.05 helps very dark or very light brands.", low=0.0, high=1.0
    )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The keys `train.*`: steps, learning rate, captions, and when a run is saved and evaluated."""

    max_steps: int = declare_config_field(
        300, "Optimizer steps. Raise it and run again to train on.", low=1, high=10_000_000
    )
    batch_size: int = declare_config_field(8, "Pictures per pass and process.", low=1, high=4096)
    accumulation: int = declare_config_field(
        1, "Passes that make one optimizer step: a larger batch in less memory.", low=1, high=4096
    )
    optimizer: str = declare_config_field(
        "adamw",
        "The optimizer. prodigy finds its own rate: set train.learning_rate=1. adamw8bit saves memory on CUDA.",
        choices=["adamw", "adamw8bit", "prodigy"],
    )
    learning_rate: float = declare_config_field(3e-3, "The learning rate after the warm-up.", low=1e-8, high=10.0)
    schedule: str = declare_config_field(
        "constant",
        "The learning rate over time. cosine ends at max_steps: raising that begins a new run.",
        choices=SCHEDULES,
    )
    warmup_steps: int = declare_config_field(
        10, "Steps in which the learning rate rises to its value.", low=0, high=1_000_000
    )
    weight_decay: float = declare_config_field(0.01, "The weight decay of the optimizer.", low=0.0, high=1.0)
    max_grad_norm: float = declare_config_field(1.0, "The norm to which gradients are clipped.", low=1e-6, high=1e6)
    ema_decay: float = declare_config_field(
        0.0, "Decay of the average of the weights that is handed out. 0: the last weights.", low=0, high=0.99999
    )
    loss: LossConfig = field(default_factory=LossConfig)
    caption_dropout: float = declare_config_field(
        0.1, "The share of captions that are left empty, which guidance needs.", low=0.0, high=1.0
    )
    shuffle_captions: bool = declare_config_field(
        False, "Shuffle the parts of a caption between commas; the first one stays first."
    )
    buckets: bool = declare_config_field(True, "Keep the shape of pictures. false: crop them to squares.")
    resolutions: list[int] | None = declare_config_field(
        None, "Sides of pictures to train at, in pixels. null: family.resolution.", low=16, high=4096
    )
    seed: int = declare_config_field(0, "The seed of batches, noise, noise levels and dropout.", low=0, high=2**31 - 1)
    checkpoint_every: int = declare_config_field(50, "Steps between saved states.", low=1, high=10_000_000)
    keep_newest: int = declare_config_field(2, "How many of the newest saved states are kept.", low=1, high=1000)
    keep_best: int = declare_config_field(
        2, "How many of the saved states that pass the gate most often are kept.", low=1, high=1000
    )
    evaluate_every: int = declare_config_field(
        100, "Steps between evaluations, which draw and judge pictures.", low=1, high=10_000_000
    )
    num_samples: int = declare_config_field(
        16, "Captions of validation/ drawn at each evaluation. 0: none.", low=0, high=1024
    )
    preview_steps: int = declare_config_field(
        8,
        "denoising steps at most of the pictures that compare checkpoints; what is handed out is judged at "
        "generate.num_inference_steps",
        low=1,
        high=1000,
    )
    evaluation_share: float = declare_config_field(
        0.3,
        "evaluations on the way are left out beyond this share of the time so far; step 0, the last step and what is "
        "handed out are always evaluated",
        low=0.0,
        high=1.0,
    )
    selection_margin: float = declare_config_field(
        0.2,
        "Checkpoints count as equal if their pass rates differ by no more, surely. 0.1 needs 32 samples.",
        low=0.0,
        high=1.0,
    )
    scales: list[float] = declare_config_field(
        [0.8, 1.0, 1.2],
        "Strengths of the LoRA that are tried at the end, where one of them could be better than 1.",
        low=0.01,
        high=10.0,
    )


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """The keys `objective.*`: what training minimises, and with `objective=dpo` how far it may leave its beginning."""

    name: str = declare_config_field(
        "denoising",
        "denoising: learn the brand's pictures. dpo: learn from preferences=DIR which of two pictures is better",
        choices=["denoising", "dpo"],
    )
    beta: float = declare_config_field(
        2000.0,
        "dpo: how strongly the LoRA is held to the one that it begins with (arXiv 2311.12908); 2000 to 5000 is usual",
        low=1e-3,
        high=1e6,
    )
    start: str | None = declare_config_field(
        None,
        "dpo: the path of the LoRA that it begins with. null: the one that drew the preferences. none: the base alone",
    )


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """The keys `plan.*`: how many slots a batch has, and how often a rejected one is drawn again."""

    num_images: int = declare_config_field(
        64, "How many slots the plan has; each is one picture.", low=1, high=1_000_000
    )
    num_wanted: int | None = declare_config_field(
        None, "Accepted pictures that make the batch complete. null: one for each slot.", low=1, high=1_000_000
    )
    max_attempts: int = declare_config_field(
        4, "How often a slot is drawn at most until a picture is accepted.", low=1, high=1000
    )
    exclude_training: bool = declare_config_field(True, "Leave out the trait combinations of the training pictures.")
    seed: int = declare_config_field(0, "The seed of the plan and of its pictures.", low=0, high=2**31 - 1)


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """The keys `generate.*`: how pictures are drawn: denoising steps, guidance, pictures at once."""

    num_inference_steps: int = declare_config_field(20, "Denoising steps for each picture.", low=1, high=1000)
    guidance_scale: float = declare_config_field(3.0, "The scale of classifier-free guidance.", low=0.0, high=50.0)
    batch_size: int = declare_config_field(
        16, "Pictures drawn at once. It may change last bits, so another number is another batch.", low=1, high=4096
    )
    by_trial: bool = declare_config_field(
        True, "Draw with the steps and guidance that stylegate trial chose, if it was run."
    )
    stop_early_at: float | None = declare_config_field(
        None,
        "The share of the steps after which previews are scored and hopeless pictures end, such as 0.3. null: never.",
        low=0.05,
        high=0.8,
    )


@dataclass(kw_only=True, slots=True)
class ScoreConfig:
    """The keys `score.*`: how pictures are measured before they are judged."""

    batch_size: int = declare_config_field(128, "Pictures that are measured at once.", low=1, high=65536)
    aesthetic_head: str | None = declare_config_field(
        None, "laion-v1, laion-v2 (data/heads/), or safetensors of linear layers. null: the encoder's own, if any."
    )
    labels: str | None = declare_config_field(
        None, "A CSV of file,label (good or bad) that the aesthetic head learns from."
    )


@dataclass(kw_only=True, slots=True)
class LabellingConfig:
    """The keys `promise.*`: how many pictures a person is asked to label."""

    num_labels: int = declare_config_field(
        200,
        "calibrate: how many pictures are labelled, fixed before the first. certify: rows of a worksheet.",
        low=1,
        high=100_000,
    )
    known_rejects: int = declare_config_field(
        40,
        "certify: spoilt copies among the pictures, which measure the reviewers. 0: they are taken to be right.",
        low=0,
        high=10_000,
    )


@dataclass(kw_only=True, slots=True)
class TrackerConfig:
    """The keys `tracker.*`: whether and where runs and verdicts are mirrored to Weights & Biases."""

    name: str = declare_config_field("none", "Where runs and verdicts are mirrored.", choices=["none", "wandb"])
    mode: str = declare_config_field("online", "The mode of W&B.", choices=["online", "offline", "disabled"])
    project: str = declare_config_field("stylegate", "The project in W&B.")
    entity: str | None = declare_config_field(None, "The team or user in W&B. null: the account's default.")


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The keys `hardware.*`: device, precision, threads and what saves memory."""

    device: str = declare_config_field(
        "auto", "auto: CUDA where there is one, else cpu. mps: an Apple GPU.", choices=["auto", "cpu", "cuda", "mps"]
    )
    precision: str = declare_config_field(
        "auto",
        "auto: bf16 on a CUDA device that has it, else fp32. Another precision is another run.",
        choices=["auto", "fp32", "bf16"],
    )
    threads: int | None = declare_config_field(
        None, "CPU threads. null: torch's choice. A resumed run keeps its number.", low=1, high=1024
    )
    gradient_checkpointing: bool = declare_config_field(
        False, "Compute activations twice: less memory, about a third slower."
    )
    nf4: bool = declare_config_field(
        False,
        "Transformer blocks in 4 bits (bitsandbytes): a third of their memory. It counts as another base.",
    )
    shard: bool = declare_config_field(
        False, "Split the base among the cards of a machine (FSDP 2): for a base that fits no single card."
    )
    price_per_hour: float | None = declare_config_field(
        None,
        "What an hour of this machine costs, in your currency. Reports then say what a picture costs.",
        low=0,
        high=1e6,
    )
    compile: bool = declare_config_field(
        False, "Compile repeated blocks of the base: faster after a minute. A resumed run keeps it."
    )


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """The keys `engine.*`: who draws and encodes pictures. Each engine gives the same bytes."""

    name: str = declare_config_field(
        "local",
        "local = this process; accelerate, slurm, ray = workers",
        choices=["local", "accelerate", "ray", "slurm"],
    )
    workers: int | None = declare_config_field(
        None, "workers; null = this machine's CUDA devices, else its cores", low=1, high=100_000
    )
    part_size: int | None = declare_config_field(
        None,
        "pictures of a part, which a worker does at once; null = 256 to encode (128 with a store), "
        "generate.batch_size to draw",
        low=1,
        high=1_000_000,
    )
    store: str | None = declare_config_field(
        None, "an object store where parts, pictures and results go, s3://BUCKET/PREFIX; null = a folder of this home"
    )
    address: str | None = declare_config_field(
        None, "ray: a cluster's address (auto, HOST:PORT); null = begin one on this machine"
    )
    cluster: str = declare_config_field(
        "slurm", "slurm: slurm, or local = processes of this machine", choices=["slurm", "local"]
    )
    partition: str | None = declare_config_field(None, "slurm: the partition of the jobs; null = the cluster's default")
    minutes: int = declare_config_field(60, "slurm: the time limit of a job in minutes", low=1, high=100_000)


def configured_lora_alpha_or_rank(lora: LoraConfig) -> float:
    """The LoRA's alpha: the configured one, else the rank, which makes the strength alpha / rank equal to 1."""
    return float(lora.rank if lora.alpha is None else lora.alpha)
