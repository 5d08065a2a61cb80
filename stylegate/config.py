"""The one typed configuration. Every verb reads its part; Hydra fills it from conf/ and the command line.

`config_key()` keeps default, help text and range of a value together: `--help`, the range check and the golden list of
keys (tests/golden/config_keys.txt) all read them from here.
"""

import difflib
import re
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stylegate.errors import ConfigError
from stylegate.files import ROOT

CONF = ROOT / "conf"
GROUPS = ("family", "lora", "objective", "hardware", "engine", "tracker", "experiment")
SCHEDULES = ["constant", "cosine"]
FAMILY_NAMES = ["sd", "sdxl", "flux2", "zimage", "flux", "qwenimage", "sd3", "krea2", "qwenimage21"]
TEXT_TRAINED = ["sd", "sdxl"]  # families whose text encoders are CLIP's and get adapters where asked for
SOURCE_TYPES = ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "algorithmicMedia"]
SOURCE_TYPES += ["digitalCreation", "humanEdits", "digitalCapture"]
LORA_TARGETS = ["attention", "feed_forward", "convolution"]


def config_key(
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

    name: str = config_key("sd", "The family of the base model: a file in stylegate/families/.", choices=FAMILY_NAMES)
    resolution: int | None = config_key(
        None, "The side of a picture, in pixels. null: what the base was trained for.", low=16, high=4096, multiple=8
    )


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """The keys `lora.*`: which layers of the base get a LoRA, and of which rank and strength."""

    rank: int = config_key(16, "The rank of the adapters.", low=1, high=1024)
    alpha: float | None = config_key(
        None, "The strength is alpha / rank. null: the rank, so that it is 1.", low=1e-3, high=4096
    )
    rslora: bool = config_key(
        False, "The strength is alpha / sqrt(rank): steadier at ranks of 64 and more. Programs read the files alike."
    )
    dora: bool = config_key(
        False,
        "Train the lengths of weights too. It is slower, and programs read the files differently (docs/lora-files.md).",
    )
    targets: list[str] = config_key(LORA_TARGETS, "The parts of the model that get an adapter.", choices=LORA_TARGETS)
    text_encoder: bool = config_key(
        False, "Adapt CLIP too (SD, SDXL): new words are learned, old ones may be forgotten. Each step is slower."
    )


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """The keys `train.loss.*`: which noise levels training draws, and how each one's error counts."""

    density: str = config_key(
        "uniform",
        "How noise levels are drawn. style: mostly those at which palette and line are decided.",
        choices=["uniform", "logit_normal", "shift", "style"],
    )
    density_mean: float = config_key(0.0, "For logit_normal: above 0, levels with more noise.", low=-10.0, high=10.0)
    density_std: float = config_key(1.0, "For logit_normal: the spread of the levels.", low=0.01, high=10.0)
    density_shift: float = config_key(3.0, "For shift: above 1, levels with more noise.", low=0.01, high=100.0)
    min_snr_gamma: float | None = config_key(
        None, "Gamma of min-SNR weights; 5 is usual. null: all levels count alike.", low=0.1, high=100.0
    )
    huber_delta: float | None = config_key(
        None, "The error above which the loss is Huber's. null: squares.", low=1e-4, high=100.0
    )
    noise_offset: float = config_key(
        0.0, "Random brightness added to the noise: 0.05 helps very dark or very light brands.", low=0.0, high=1.0
    )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The keys `train.*`: steps, learning rate, captions, and when a run is saved and evaluated."""

    max_steps: int = config_key(300, "Optimizer steps. Raise it and run again to train on.", low=1, high=10_000_000)
    batch_size: int = config_key(8, "Pictures per pass and process.", low=1, high=4096)
    accumulation: int = config_key(
        1, "Passes that make one optimizer step: a larger batch in less memory.", low=1, high=4096
    )
    optimizer: str = config_key(
        "adamw",
        "The optimizer. prodigy finds its own rate: set train.learning_rate=1. adamw8bit saves memory on CUDA.",
        choices=["adamw", "adamw8bit", "prodigy"],
    )
    learning_rate: float = config_key(3e-3, "The learning rate after the warm-up.", low=1e-8, high=10.0)
    schedule: str = config_key(
        "constant",
        "The learning rate over time. cosine ends at max_steps: raising that begins a new run.",
        choices=SCHEDULES,
    )
    warmup_steps: int = config_key(10, "Steps in which the learning rate rises to its value.", low=0, high=1_000_000)
    weight_decay: float = config_key(0.01, "The weight decay of the optimizer.", low=0.0, high=1.0)
    max_grad_norm: float = config_key(1.0, "The norm to which gradients are clipped.", low=1e-6, high=1e6)
    ema_decay: float = config_key(
        0.0, "Decay of the average of the weights that is handed out. 0: the last weights.", low=0, high=0.99999
    )
    loss: LossConfig = field(default_factory=LossConfig)
    caption_dropout: float = config_key(
        0.1, "The share of captions that are left empty, which guidance needs.", low=0.0, high=1.0
    )
    shuffle_captions: bool = config_key(
        False, "Shuffle the parts of a caption between commas; the first one stays first."
    )
    buckets: bool = config_key(True, "Keep the shape of pictures. false: crop them to squares.")
    resolutions: list[int] | None = config_key(
        None, "Sides of pictures to train at, in pixels. null: family.resolution.", low=16, high=4096
    )
    seed: int = config_key(0, "The seed of batches, noise, noise levels and dropout.", low=0, high=2**31 - 1)
    checkpoint_every: int = config_key(50, "Steps between saved states.", low=1, high=10_000_000)
    keep_newest: int = config_key(2, "How many of the newest saved states are kept.", low=1, high=1000)
    keep_best: int = config_key(
        2, "How many of the saved states that pass the gate most often are kept.", low=1, high=1000
    )
    evaluate_every: int = config_key(
        100, "Steps between evaluations, which draw and judge pictures.", low=1, high=10_000_000
    )
    num_samples: int = config_key(16, "Captions of validation/ drawn at each evaluation. 0: none.", low=0, high=1024)
    preview_steps: int = config_key(
        8,
        "denoising steps at most of the pictures that compare checkpoints; what is handed out is judged at "
        "generate.num_inference_steps",
        low=1,
        high=1000,
    )
    evaluation_share: float = config_key(
        0.3,
        "evaluations on the way are left out beyond this share of the time so far; step 0, the last step and what is "
        "handed out are always evaluated",
        low=0.0,
        high=1.0,
    )
    selection_margin: float = config_key(
        0.2,
        "Checkpoints count as equal if their pass rates differ by no more, surely. 0.1 needs 32 samples.",
        low=0.0,
        high=1.0,
    )
    scales: list[float] = config_key(
        [0.8, 1.0, 1.2],
        "Strengths of the LoRA that are tried at the end, where one of them could be better than 1.",
        low=0.01,
        high=10.0,
    )


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """The keys `objective.*`: what training minimises, and with `objective=dpo` how far it may leave its beginning."""

    name: str = config_key(
        "denoising",
        "denoising: learn the brand's pictures. dpo: learn from preferences=DIR which of two pictures is better",
        choices=["denoising", "dpo"],
    )
    beta: float = config_key(
        2000.0,
        "dpo: how strongly the LoRA is held to the one that it begins with (arXiv 2311.12908); 2000 to 5000 is usual",
        low=1e-3,
        high=1e6,
    )
    start: str | None = config_key(
        None,
        "dpo: the path of the LoRA that it begins with. null: the one that drew the preferences. none: the base alone",
    )


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """The keys `plan.*`: how many slots a batch has, and how often a rejected one is drawn again."""

    num_images: int = config_key(64, "How many slots the plan has; each is one picture.", low=1, high=1_000_000)
    num_wanted: int | None = config_key(
        None, "Accepted pictures that make the batch complete. null: one for each slot.", low=1, high=1_000_000
    )
    max_attempts: int = config_key(
        4, "How often a slot is drawn at most until a picture is accepted.", low=1, high=1000
    )
    exclude_training: bool = config_key(True, "Leave out the trait combinations of the training pictures.")
    seed: int = config_key(0, "The seed of the plan and of its pictures.", low=0, high=2**31 - 1)


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """The keys `generate.*`: how pictures are drawn: denoising steps, guidance, pictures at once."""

    num_inference_steps: int = config_key(20, "Denoising steps for each picture.", low=1, high=1000)
    guidance_scale: float = config_key(3.0, "The scale of classifier-free guidance.", low=0.0, high=50.0)
    batch_size: int = config_key(
        16, "Pictures drawn at once. It may change last bits, so another number is another batch.", low=1, high=4096
    )
    by_trial: bool = config_key(True, "Draw with the steps and guidance that stylegate trial chose, if it was run.")
    stop_early_at: float | None = config_key(
        None,
        "The share of the steps after which previews are scored and hopeless pictures end, such as 0.3. null: never.",
        low=0.05,
        high=0.8,
    )


@dataclass(kw_only=True, slots=True)
class ScoreConfig:
    """The keys `score.*`: how pictures are measured before they are judged."""

    batch_size: int = config_key(128, "Pictures that are measured at once.", low=1, high=65536)
    aesthetic_head: str | None = config_key(
        None, "laion-v1, laion-v2 (data/heads/), or safetensors of linear layers. null: the encoder's own, if any."
    )
    labels: str | None = config_key(None, "A CSV of file,label (good or bad) that the aesthetic head learns from.")


@dataclass(kw_only=True, slots=True)
class LabellingConfig:
    """The keys `promise.*`: how many pictures a person is asked to label."""

    num_labels: int = config_key(
        200,
        "calibrate: how many pictures are labelled, fixed before the first. certify: rows of a worksheet.",
        low=1,
        high=100_000,
    )
    known_rejects: int = config_key(
        40,
        "certify: spoilt copies among the pictures, which measure the reviewers. 0: they are taken to be right.",
        low=0,
        high=10_000,
    )


@dataclass(kw_only=True, slots=True)
class TrackerConfig:
    """The keys `tracker.*`: whether and where runs and verdicts are mirrored to Weights & Biases."""

    name: str = config_key("none", "Where runs and verdicts are mirrored.", choices=["none", "wandb"])
    mode: str = config_key("online", "The mode of W&B.", choices=["online", "offline", "disabled"])
    project: str = config_key("stylegate", "The project in W&B.")
    entity: str | None = config_key(None, "The team or user in W&B. null: the account's default.")


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The keys `hardware.*`: device, precision, threads and what saves memory."""

    device: str = config_key(
        "auto", "auto: CUDA where there is one, else cpu. mps: an Apple GPU.", choices=["auto", "cpu", "cuda", "mps"]
    )
    precision: str = config_key(
        "auto",
        "auto: bf16 on a CUDA device that has it, else fp32. Another precision is another run.",
        choices=["auto", "fp32", "bf16"],
    )
    threads: int | None = config_key(
        None, "CPU threads. null: torch's choice. A resumed run keeps its number.", low=1, high=1024
    )
    gradient_checkpointing: bool = config_key(False, "Compute activations twice: less memory, about a third slower.")
    nf4: bool = config_key(
        False,
        "Transformer blocks in 4 bits (bitsandbytes): a third of their memory. It counts as another base.",
    )
    shard: bool = config_key(
        False, "Split the base among the cards of a machine (FSDP 2): for a base that fits no single card."
    )
    price_per_hour: float | None = config_key(
        None,
        "What an hour of this machine costs, in your currency. Reports then say what a picture costs.",
        low=0,
        high=1e6,
    )
    compile: bool = config_key(
        False, "Compile repeated blocks of the base: faster after a minute. A resumed run keeps it."
    )


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """The keys `engine.*`: who draws and encodes pictures. Each engine gives the same bytes."""

    name: str = config_key(
        "local",
        "local = this process; accelerate, slurm, ray = workers",
        choices=["local", "accelerate", "ray", "slurm"],
    )
    workers: int | None = config_key(
        None, "workers; null = this machine's CUDA devices, else its cores", low=1, high=100_000
    )
    part_size: int | None = config_key(
        None,
        "pictures of a part, which a worker does at once; null = 1024 to encode (128 with a store), "
        "generate.batch_size to draw",
        low=1,
        high=1_000_000,
    )
    store: str | None = config_key(
        None, "an object store where parts, pictures and results go, s3://BUCKET/PREFIX; null = a folder of this home"
    )
    address: str | None = config_key(
        None, "ray: a cluster's address (auto, HOST:PORT); null = begin one on this machine"
    )
    cluster: str = config_key("slurm", "slurm: slurm, or local = processes of this machine", choices=["slurm", "local"])
    partition: str | None = config_key(None, "slurm: the partition of the jobs; null = the cluster's default")
    minutes: int = config_key(60, "slurm: the time limit of a job in minutes", low=1, high=100_000)


@dataclass(kw_only=True, slots=True)
class Config:
    """All configuration of a command; `stylegate VERB --help` lists the keys that a verb reads."""

    name: str | None = config_key(
        None, "The name of what is made. null: the name of the experiment, else of the brand."
    )
    brand: str | None = config_key(None, "The name of a brand, the path of a brand set (./acme), or hub:owner/name.")
    images: str | None = config_key(None, "The path of a folder of pictures.")
    test: int | None = config_key(
        None,
        "Pictures for test/, the gate's references. null: a third, up to 16; a fifth of 80 and more.",
        low=1,
        high=100_000,
    )
    validation: int | None = config_key(
        None,
        "Pictures for validation/, which choose the checkpoint. null: a sixth, up to 8; a tenth of 80 and more.",
        low=1,
        high=100_000,
    )
    keep: int | None = config_key(
        None, "How many pictures to use: the most varied, near-duplicates last. null: all of them.", low=3, high=100_000
    )
    captioner: str | None = config_key(
        None, "The vision-language model that writes captions: a hub id of transformers, or the path of a folder."
    )
    ask: str = config_key(
        "Describe what the picture shows in one sentence. Do not mention its style.",
        "What the captioner is asked, if it is a model that is spoken to.",
    )
    crop: bool = config_key(False, "Cut off even frames and bars around pictures, which are then saved anew as PNG.")
    trigger: str | None = config_key(None, "The phrase that calls the style. null: the name, and the word style.")
    licence: str = config_key(
        "unknown", "The licence of the pictures. unknown: export refuses what is drawn from them."
    )
    alpha: str = config_key(
        "flatten",
        "flatten: transparent pictures are laid on the background. keep: pictures to judge must be transparent where "
        "the references are.",
        choices=["flatten", "keep"],
    )
    background: str = config_key("#ffffff", "The colour under transparency.")
    out: str | None = config_key(
        None, "The folder to write to. null: a folder of its own, which is printed as the last line."
    )
    batch: str | None = config_key(
        None, "The name of a batch in data/batches/. null: a name made from plan, base and LoRA."
    )
    prompts: str | None = config_key(None, "The path of a file with one prompt on each line.")
    traits: str | None = config_key(
        None, "The name of a shipped traits file, or a path. null: prompts, else the captions of validation/."
    )
    import_file: str | None = config_key(
        None, "A folder of layers, a CSV or JSON of items (import=FILE is the same): plan makes a traits file of it."
    )
    keep_items: bool = config_key(
        False, "With import= of items: a plan keeps each item as it is, in the order of the file; the first is slot 0."
    )
    repair: str | None = config_key(
        None, "Slots of a plan that get other traits: numbers with commas, or all whose attempts are used. Counts stay."
    )
    preferences: str | None = config_key(
        None, "With objective=dpo: the path of a preference set, a folder that stylegate preferences made."
    )
    policy: str = config_key("default", "The name of a shipped policy, or the path of a policy file (acme.yaml).")
    encoder: str | None = config_key(
        None,
        "null: brand.yaml's, else miniature. miniature, a folder (./clip), open_clip's MODEL:PRETRAINED "
        "(ViT-L-14-quickgelu:openai) or MODEL:FILE, timm:NAME[:FILE], or csd:FILE; a FILE is safetensors. "
        "A+B are two: both read the brand, the first makes every other score.",
    )
    encoders: str | None = config_key(
        None, "Names of encoders to compare, with commas between, each as for encoder. null: those that are known here."
    )
    choose: bool = config_key(False, "Write the encoder that reads the brand best into brand.yaml.")
    base: str = config_key("miniature", "miniature, the path of a diffusers folder (./base), or a hub id (owner/name).")
    draw_base: str | None = config_key(
        None,
        "Another base of the same architecture that draws what a LoRA of base= is for, such as the distilled one: "
        "checkpoints are chosen by its pictures, generate draws with it. null: base.",
    )
    references: str | None = config_key(
        None, "The name of a brand, or the path of a folder, whose pictures show the style. null: test/ of the brand."
    )
    foreign: str | None = config_key(
        None, "The path of a folder of pictures in styles to be kept apart from the brand's; each subfolder is a style."
    )
    lora_file: str | None = config_key(
        None, "The path of the LoRA to draw with. null: the one trained with the same arguments. none: the base alone."
    )
    decisions: str | None = config_key(
        None, "A CSV file of sha256,verdict,who,why: decisions about review for gate, labels for calibrate and certify."
    )
    calibration: str | None = config_key(
        None, "The calibration.json of a batch that was made in the same way. null: the batch's own."
    )
    key: str | None = config_key(
        None,
        "The private key (P-256, PEM) that signs a package. null: this home's own. none: the package is not signed.",
    )
    marks: str = config_key(
        "all",
        "What pictures of a package say of themselves. all: their source type in XMP, and signed content credentials "
        "(C2PA). xmp: their source type. none: nothing; the package says so.",
        choices=["all", "xmp", "none"],
    )
    watermark: str | None = config_key(
        None,
        "The path of a watermark's weights (safetensors): drawn pictures carry it, and export reads it again. "
        "null: none.",
    )
    credentials: str | None = config_key(
        None, "The certificate, PEM, that signs content credentials, then those above it. null: a test one, named so."
    )
    credentials_key: str | None = config_key(
        None, "The private key of that certificate (PEM). null: it is in the same file."
    )
    credentials_command: str | None = config_key(
        None, "A command that signs instead of a key: its input becomes a signature (DER), as of openssl dgst -sign."
    )
    source_type: str | None = config_key(
        None, "How pictures that were not drawn here came to be, by IPTC's codes.", choices=SOURCE_TYPES
    )
    burn: str | None = config_key(
        None,
        "Items of a planned batch that its next package leaves out for ever, by number: 3,7.",
    )
    merge: str | None = config_key(
        None, "Items of a planned batch that become one in its next package: 3+7,10+11 lets 7 and 11 go for ever."
    )
    accept_licence: str | None = config_key(
        None,
        "Licences that are unclear or not commercial (of base, LoRA, pictures), with commas: you may work under them.",
    )
    dry_run: bool = config_key(
        False, "Check everything, estimate memory and time; use no accelerator and write nothing."
    )
    explain: bool = config_key(False, "Print the policy in force and its hash; judge nothing.")
    show: bool = config_key(False, "Print counts, rarity and pairs of the plan, and draw them; write no plan.")
    audit: bool = config_key(
        False, "Ask people about stated traits of the batch, in random order, until it is proven how few are wrong."
    )
    watch: bool = config_key(
        False, "With images= and out=: judge pictures as they come, until Ctrl-C; exit code of the last judgement."
    )
    observe: bool = config_key(False, "Write all verdicts but end with exit code 0; export refuses such verdicts.")
    queue: str = config_key(
        "borderline",
        "What a review asks about. borderline: pictures in review. disagreements: those that reviewers disagree about. "
        "audit: accepted ones at random, for certify. calibration: a random sample, for calibrate. rejected: a random "
        "sample of rejected ones, to see how many of them are good.",
        choices=["borderline", "disagreements", "audit", "calibration", "rejected"],
    )
    host: str = config_key(
        "127.0.0.1", "The address that the page of a review listens on. Any but this machine's own needs a token."
    )
    port: int = config_key(8642, "The port of the page of a review; 0 = any free one.", low=0, high=65535)
    open: bool = config_key(True, "Open the page of a review in the browser, where there is a display.")
    family: FamilyConfig = field(default_factory=FamilyConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    promise: LabellingConfig = field(default_factory=LabellingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


@cache
def config_fields_by_key(schema: type = Config, prefix: str = "") -> dict[str, Field]:
    """The dataclass field of every value of the schema, by dotted key (train.max_steps)."""
    found: dict[str, Field] = {}
    for entry in fields(schema):
        if is_dataclass(entry.type):
            found |= config_fields_by_key(entry.type, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + entry.name] = entry
    return found


def config_value_problems(config: Config) -> list[str]:
    """A message, with the key named, for every value that is out of its range or choices, or does not go with another
    one.
    """
    problems = []
    for dotted, entry in config_fields_by_key().items():
        value: Any = config
        for part in dotted.split("."):
            value = getattr(value, part)
        low, high, choices = entry.metadata["low"], entry.metadata["high"], entry.metadata["choices"]
        if value is None or isinstance(value, bool):
            continue
        if choices and not set(value if isinstance(value, list) else [value]) <= set(choices):
            problems.append(
                f"{dotted}={value}: must be {'among' if isinstance(value, list) else 'one of'} {list(choices)}"
            )
        if isinstance(value, list) and not value:
            problems.append(f"{dotted}=[]: must not be empty")
        if entry.metadata["multiple"] and value % entry.metadata["multiple"]:
            problems.append(f"{dotted}={value}: must be a multiple of {entry.metadata['multiple']}")
        numbers = value if isinstance(value, list) else [value]
        if low is not None and not all(low <= number <= high for number in numbers):  # NaN fails this too
            problems.append(f"{dotted}={value}: must lie in [{low:g}, {high:g}]")
    for dotted, value in (("name", config.name), ("batch", config.batch)):
        if value is not None and not re.fullmatch(r"\w[\w.-]*", value):
            problems.append(f"{dotted}={value}: letters, digits, . _ - only; it names a folder")
    for name in ("credentials", "credentials_key", "credentials_command"):
        if getattr(config, name) is not None and (config.marks != "all" or config.credentials is None):
            problems.append(f"{name}: read with marks=all alone, and with credentials=FILE")
    if config.lora.text_encoder and config.family.name not in TEXT_TRAINED:
        problems.append(f"lora.text_encoder=true: family={config.family.name} does not train its text encoders")
    if config.preferences is not None and config.objective.name != "dpo":
        problems.append("preferences: read with objective=dpo alone")
    if config.lora.text_encoder and config.objective.name == "dpo":
        problems.append("lora.text_encoder=true: objective=dpo trains no text encoder")
    if config.lora.dora and config.hardware.nf4:
        problems.append("lora.dora=true: not on a base in 4 bits (hardware.nf4), whose lengths are rounded")
    if config.hardware.shard:
        problems += [
            f"hardware.shard=true: not with hardware.{name}=true"
            for name in ("nf4", "compile")
            if getattr(config.hardware, name)
        ]
    if config.plan.num_wanted and config.plan.num_wanted > config.plan.num_images:
        problems.append(f"plan.num_wanted={config.plan.num_wanted}: more than plan.num_images={config.plan.num_images}")
    return problems


def is_text_key(name: str) -> bool:
    """Whether the value of this dotted key is one text: it is used as it is written, whatever it looks like."""
    entry = config_fields_by_key().get(name)
    return entry is not None and entry.type in (str, str | None)


def nearest_key(name: str) -> str:
    """The key that was probably meant by an unknown one, as max_steps for train.max_steps, refs for references; "" if
    none is near.
    """
    keys = list(config_fields_by_key())
    last = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = difflib.get_close_matches(name, keys, n=1)
    near += [last[word] for word in difflib.get_close_matches(name, last, n=1)]
    shortened = [key for key in keys if len(name) > 2 and key[0] == name[0] and is_subsequence(name, key)]
    return next(iter([*near, *sorted(shortened, key=len)]), "")


def is_subsequence(part: str, text: str) -> bool:
    """Whether the letters of `part` stand in `text` in their order."""
    rest = iter(text)
    return all(letter in rest for letter in part)


def override_problem(override, schema) -> str | None:
    """What is wrong with one parsed override of Hydra's, or None. `schema` is OmegaConf.structured(Config)."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    name, text = override.key_or_group, override.input_line
    if override.is_delete():
        return f"{text}: keys cannot be deleted"
    if name in GROUPS:
        options = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
        value = None if override.is_sweep_override() else override.value()
        return None if value is None or value in options else f"{text}: {name} must be one of {options}"
    if name not in config_fields_by_key():
        near = nearest_key(name)
        return f"{name}: unknown key" + (f"; did you mean {near}?" if near else "")
    if override.is_sweep_override():
        return None
    try:
        OmegaConf.update(schema, name, override.value())
    except OmegaConfBaseException as error:
        return f"{text}: {str(error).splitlines()[0]}"
    return None


def unknown_key_problems(cfg, path: str = "") -> list[str]:
    """A message for each key of a composed config that the schema does not declare, including those of YAML files."""
    from omegaconf import DictConfig, OmegaConf

    schema = OmegaConf.get_type(cfg)
    known = {f.name for f in fields(schema)} if is_dataclass(schema) else None
    found = []
    for name in cfg:
        if known is not None and name not in known:
            found.append(f"{path}{name}: unknown key")
        elif isinstance(node := cfg._get_node(name), DictConfig) and not node._is_none():
            found += unknown_key_problems(node, f"{path}{name}.")
    return found


def checked_config(cfg, problems: list[str], verb: str = "COMMAND") -> Config:
    """The composed config of a verb as dataclasses. Raises ConfigError with every problem at once, `problems`
    included.
    """
    from omegaconf import OmegaConf

    problems = problems + unknown_key_problems(cfg)
    problems += [f"{name}=???: a value is needed" for name in OmegaConf.missing_keys(cfg)]
    if not problems:
        config = OmegaConf.to_object(cfg)
        assert isinstance(config, Config)
        problems = config_value_problems(config)
        if not problems:
            return config
    else:  # ranges are still worth reporting where the known part can be read
        known = {k: cfg[k] for k in cfg if k in Config.__slots__ and not OmegaConf.is_missing(cfg, k)}
        readable = OmegaConf.merge(OmegaConf.structured(Config), known)
        problems = problems + config_value_problems(OmegaConf.to_object(readable))  # type: ignore[arg-type]
    raise configuration_error(problems, verb)


def configuration_error(problems: list[str], verb: str) -> ConfigError:
    """The ConfigError, for the caller to raise, that lists every problem of the configuration of a verb."""
    return ConfigError("the configuration has problems:", problems, f"stylegate {verb} --help lists its keys.")


def run_name(config: Config) -> str:
    """What runs and batches are called: the name, else the brand's folder name, made fit for a folder."""
    if config.name:
        return config.name
    return re.sub(r"[^\w.-]+", "-", Path((config.brand or "unnamed").removeprefix("hub:")).name).strip("-.")


def lora_alpha(lora: LoraConfig) -> float:
    """The LoRA's alpha: the configured one, else the rank, which makes the strength alpha / rank equal to 1."""
    return float(lora.rank if lora.alpha is None else lora.alpha)


def config_as_dict(config: Any) -> dict:
    """A dataclass, with the dataclasses in it, as plain JSON data."""
    return {
        f.name: config_as_dict(value) if is_dataclass(value := getattr(config, f.name)) else value
        for f in fields(config)
    }
