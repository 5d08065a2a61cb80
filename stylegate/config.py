"""The one typed configuration. Every verb reads its part; Hydra fills it from conf/ and the command line.

The groups of keys are in stylegate/configgroups.py; stylegate/configcheck.py says what is wrong with a configuration.
"""

import re
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stylegate.configgroups import (
    EngineConfig,
    FamilyConfig,
    GenerateConfig,
    HardwareConfig,
    LabellingConfig,
    LoraConfig,
    ObjectiveConfig,
    PlanConfig,
    ScoreConfig,
    TrackerConfig,
    TrainConfig,
    declare_config_field,
)
from stylegate.files import ROOT

CONF = ROOT / "conf"
GROUPS = ("family", "lora", "objective", "hardware", "engine", "tracker", "experiment")
SOURCE_TYPES = ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "algorithmicMedia"]
SOURCE_TYPES += ["digitalCreation", "humanEdits", "digitalCapture"]


@dataclass(kw_only=True, slots=True)
class Config:
    """All configuration of a command; `stylegate VERB --help` lists the keys that a verb reads."""

    name: str | None = declare_config_field(
        None, "The name of what is made. null: the name of the experiment, else of the brand."
    )
    brand: str | None = declare_config_field(
        None, "The name of a brand, the path of a brand set (./acme), or hub:owner/name."
    )
    images: str | None = declare_config_field(None, "The path of a folder of pictures.")
    test: int | None = declare_config_field(
        None,
        "Pictures for test/, the gate's references. null: a third, up to 16; a fifth of 80 and more.",
        low=1,
        high=100_000,
    )
    validation: int | None = declare_config_field(
        None,
        "Pictures for validation/, which choose the checkpoint. null: a sixth, up to 8; a tenth of 80 and more.",
        low=1,
        high=100_000,
    )
    keep: int | None = declare_config_field(
        None, "How many pictures to use: the most varied, near-duplicates last. null: all of them.", low=3, high=100_000
    )
    captioner: str | None = declare_config_field(
        None, "The vision-language model that writes captions: a hub id of transformers, or the path of a folder."
    )
    ask: str = declare_config_field(
        "Describe what the picture shows in one sentence. Do not mention its style.",
        "What the captioner is asked, if it is a model that is spoken to.",
    )
    crop: bool = declare_config_field(
        False, "Cut off even frames and bars around pictures, which are then saved anew as PNG."
    )
    trigger: str | None = declare_config_field(
        None, "The phrase that calls the style. null: the name, and the word style."
    )
    licence: str = declare_config_field(
        "unknown", "The licence of the pictures. unknown: export refuses what is drawn from them."
    )
    alpha: str = declare_config_field(
        "flatten",
        "flatten: transparent pictures are laid on the background. keep: pictures to judge must be transparent where "
        "the references are.",
        choices=["flatten", "keep"],
    )
    background: str = declare_config_field("#ffffff", "The colour under transparency.")
    out: str | None = declare_config_field(
        None, "The folder to write to. null: a folder of its own, which is printed as the last line."
    )
    batch: str | None = declare_config_field(
        None, "The name of a batch in data/batches/. null: a name made from plan, base and LoRA."
    )
    prompts: str | None = declare_config_field(None, "The path of a file with one prompt on each line.")
    traits: str | None = declare_config_field(
        None, "The name of a shipped traits file, or a path. null: prompts, else the captions of validation/."
    )
    import_file: str | None = declare_config_field(
        None, "A folder of layers, a CSV or JSON of items (import=FILE is the same): plan makes a traits file of it."
    )
    keep_items: bool = declare_config_field(
        False, "With import= of items: a plan keeps each item as it is, in the order of the file; the first is slot 0."
    )
    repair: str | None = declare_config_field(
        None, "Slots of a plan that get other traits: numbers with commas, or all whose attempts are used. Counts stay."
    )
    preferences: str | None = declare_config_field(
        None, "With objective=dpo: the path of a preference set, a folder that stylegate preferences made."
    )
    policy: str = declare_config_field(
        "default", "The name of a shipped policy, or the path of a policy file (acme.yaml)."
    )
    encoder: str | None = declare_config_field(
        None,
        "null: brand.yaml's, else miniature. miniature, a folder (./clip), open_clip's MODEL:PRETRAINED "
        "(ViT-L-14-quickgelu:openai) or MODEL:FILE, timm:NAME[:FILE], or csd:FILE; a FILE is safetensors. "
        "A+B are two: both read the brand, the first makes every other score.",
    )
    encoders: str | None = declare_config_field(
        None, "Names of encoders to compare, with commas between, each as for encoder. null: those that are known here."
    )
    choose: bool = declare_config_field(False, "Write the encoder that reads the brand best into brand.yaml.")
    base: str = declare_config_field(
        "miniature", "miniature, the path of a diffusers folder (./base), or a hub id (owner/name)."
    )
    draw_base: str | None = declare_config_field(
        None,
        "Another base of the same architecture that draws what a LoRA of base= is for, such as the distilled one: "
        "checkpoints are chosen by its pictures, generate draws with it. null: base.",
    )
    references: str | None = declare_config_field(
        None, "The name of a brand, or the path of a folder, whose pictures show the style. null: test/ of the brand."
    )
    foreign: str | None = declare_config_field(
        None, "The path of a folder of pictures in styles to be kept apart from the brand's; each subfolder is a style."
    )
    lora_file: str | None = declare_config_field(
        None, "The path of the LoRA to draw with. null: the one trained with the same arguments. none: the base alone."
    )
    decisions: str | None = declare_config_field(
        None, "A CSV file of sha256,verdict,who,why: decisions about review for gate, labels for calibrate and certify."
    )
    calibration: str | None = declare_config_field(
        None, "The calibration.json of a batch that was made in the same way. null: the batch's own."
    )
    key: str | None = declare_config_field(
        None,
        "The private key (P-256, PEM) that signs a package. null: this home's own. none: the package is not signed.",
    )
    marks: str = declare_config_field(
        "all",
        "What pictures of a package say of themselves. all: their source type in XMP, and signed content credentials "
        "(C2PA). xmp: their source type. none: nothing; the package says so.",
        choices=["all", "xmp", "none"],
    )
    watermark: str | None = declare_config_field(
        None,
        "The path of a watermark's weights (safetensors): drawn pictures carry it, and export reads it again. "
        "null: none.",
    )
    credentials: str | None = declare_config_field(
        None, "The certificate, PEM, that signs content credentials, then those above it. null: a test one, named so."
    )
    credentials_key: str | None = declare_config_field(
        None, "The private key of that certificate (PEM). null: it is in the same file."
    )
    credentials_command: str | None = declare_config_field(
        None, "A command that signs instead of a key: its input becomes a signature (DER), as of openssl dgst -sign."
    )
    source_type: str | None = declare_config_field(
        None, "How pictures that were not drawn here came to be, by IPTC's codes.", choices=SOURCE_TYPES
    )
    burn: str | None = declare_config_field(
        None,
        "Items of a planned batch that its next package leaves out for ever, by number: 3,7.",
    )
    merge: str | None = declare_config_field(
        None, "Items of a planned batch that become one in its next package: 3+7,10+11 lets 7 and 11 go for ever."
    )
    accept_licence: str | None = declare_config_field(
        None,
        "Licences that are unclear or not commercial (of base, LoRA, pictures), with commas: you may work under them.",
    )
    dry_run: bool = declare_config_field(
        False, "Check everything, estimate memory and time; use no accelerator and write nothing."
    )
    explain: bool = declare_config_field(False, "Print the policy in force and its hash; judge nothing.")
    show: bool = declare_config_field(
        False, "Print counts, rarity and pairs of the plan, and draw them; write no plan."
    )
    audit: bool = declare_config_field(
        False, "Ask people about stated traits of the batch, in random order, until it is proven how few are wrong."
    )
    watch: bool = declare_config_field(
        False, "With images= and out=: judge pictures as they come, until Ctrl-C; exit code of the last judgement."
    )
    observe: bool = declare_config_field(
        False, "Write all verdicts but end with exit code 0; export refuses such verdicts."
    )
    queue: str = declare_config_field(
        "borderline",
        "What a review asks about. borderline: pictures in review. disagreements: those that reviewers disagree about. "
        "audit: accepted ones at random, for certify. calibration: a random sample, for calibrate. rejected: a random "
        "sample of rejected ones, to see how many of them are good.",
        choices=["borderline", "disagreements", "audit", "calibration", "rejected"],
    )
    host: str = declare_config_field(
        "127.0.0.1", "The address that the page of a review listens on. Any but this machine's own needs a token."
    )
    port: int = declare_config_field(8642, "The port of the page of a review; 0 = any free one.", low=0, high=65535)
    open: bool = declare_config_field(True, "Open the page of a review in the browser, where there is a display.")
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


def spell_import_file_as_import(text: str) -> str:
    """A key, or a message about keys, with `import` in place of import_file: no field of Python can be called so."""
    return re.sub(r"\bimport_file(?=[=:]|$)", "import", text)


def run_or_batch_name(config: Config) -> str:
    """What runs and batches are called: the name, else the brand's folder name, made fit for a folder."""
    if config.name:
        return config.name
    brand = (config.brand or "unnamed").removeprefix("hub:")
    folder = Path(brand).expanduser()
    if not folder.name.strip("."):  # brand=. or ..: the folder that it leads to
        folder = folder.resolve()
    return re.sub(r"[^\w.-]+", "-", folder.name).strip("-.") or "unnamed"


def config_as_dict(config: Any) -> dict:
    """A dataclass, with the dataclasses in it, as plain JSON data."""
    return {
        f.name: config_as_dict(value) if is_dataclass(value := getattr(config, f.name)) else value
        for f in fields(config)
    }
