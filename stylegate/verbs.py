"""The verbs of the command line: what each does, an example, the keys that it reads, and its --help."""

import shlex
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from stylegate import config as configuration
from stylegate.rundirectory import NOT_IN_WEIGHTS


class VerbHelp(NamedTuple):
    """A verb of the command line: its help, and the configuration keys that it reads."""

    does: str
    example: str
    keys: str = ""  # what the verb reads: parts of the configuration (train) and single keys (plan.seed)
    finds: str = ""  # what it reads only to find the run or the batch that other verbs made
    helps: tuple[tuple[str, str], ...] = ()  # (key, help) where the key means something of its own for this verb
    takes: tuple[tuple[str, str], ...] = ()  # (word, help) of a verb that reads no configuration


# The arguments that name a run and its LoRA, and those that name a batch.
RUN = "name brand base draw_base family lora objective preferences train hardware.device hardware.precision"
BATCH = f"{RUN} traits prompts lora_file plan.seed plan.exclude_training generate hardware.nf4 watermark"
SCORE = "images batch out brand references foreign encoder score engine hardware.device hardware.threads"

VERBS = {
    "brand": VerbHelp(
        "make a brand set from a folder of pictures",
        "name=acme images=~/acme-art licence=own-work",
        "name images trigger licence alpha background keep crop test validation out",
        helps=(("out", "The folder to write to. null: data/brands/NAME."),),
    ),
    "caption": VerbHelp(
        "write captions for pictures that have none, by a vision-language model",
        "images=~/acme-art captioner=Salesforce/blip-image-captioning-base",
        "images captioner ask background out hardware.device hardware.precision hardware.threads",
        helps=(("out", "The sheet of pictures and captions. null: IMAGES-captions.png beside the folder."),),
    ),
    "check": VerbHelp(
        "report everything wrong with a brand set at once",
        "brand=acme",
        "brand base family.name family.resolution train.resolutions train.buckets encoder score.batch_size show "
        "hardware.device hardware.threads",
        helps=(("show", "Print for each picture of train/ the shape in which it is trained."),),
    ),
    "train": VerbHelp(
        "train a LoRA on a brand set",
        "brand=neon",
        f"{RUN} accept_licence generate encoder policy score dry_run tracker hardware.threads "
        "hardware.gradient_checkpointing hardware.nf4 hardware.shard hardware.compile",
    ),
    "plan": VerbHelp(
        "plan a batch: its slots with traits, prompts and seeds",
        "brand=neon traits=collectible",
        "name brand batch traits prompts plan show import_file keep_items repair audit out policy decisions promise "
        "references foreign encoder score hardware.threads",
        BATCH,
        helps=(
            (
                "out",
                "Besides the plan: a new file ITEMS.csv, or folder NAME.json or NAME.layers, for the items of traits=. "
                "With import= the traits file to write; null: data/traits/NAME.yaml.",
            ),
        ),
    ),
    "generate": VerbHelp(
        "draw the slots of a plan that are open",
        "brand=neon traits=collectible",
        "brand batch base draw_base family lora_file generate plan.max_attempts encoder references foreign score "
        "policy engine hardware.device hardware.precision hardware.threads hardware.price_per_hour",
        BATCH,
    ),
    "trial": VerbHelp(
        "find how few denoising steps a LoRA needs to pass the gate",
        "brand=neon traits=collectible",
        f"brand batch references foreign encoder score policy plan hardware.threads {BATCH}",
        helps=(("batch", "A batch that is planned: its slots are drawn. null: those that the arguments would plan."),),
    ),
    "score": VerbHelp("measure any folder of pictures, or a batch", "images=DIR references=neon", SCORE, BATCH),
    "encoders": VerbHelp(
        "compare encoders: how surely each recognises a brand or a folder's style, at what cost",
        "brand=acme encoders=miniature,ViT-L-14-quickgelu:openai",
        "brand references foreign encoders choose score.batch_size hardware.device hardware.threads",
    ),
    "gate": VerbHelp(
        "accept, review or reject each picture",
        "images=DIR references=neon",
        f"{SCORE} policy decisions calibration explain observe watch hardware.price_per_hour tracker",
        BATCH,
    ),
    "review": VerbHelp(
        "decide about pictures in review, in a browser",
        "batch=NAME",
        f"{SCORE} policy calibration queue promise host port open",
        BATCH,
    ),
    "learn": VerbHelp(
        "learn from decisions about pictures in review",
        "batch=NAME",
        f"{SCORE} policy",
        BATCH,
    ),
    "preferences": VerbHelp(
        "save accepted and rejected pictures of the same slots, for train objective=dpo",
        "batch=NAME",
        "brand batch out",
        BATCH,
        helps=(("out", "The folder to make. null: preferences/ in the folder of the batch."),),
    ),
    "calibrate": VerbHelp(
        "choose a threshold of a policy by labels of a random sample",
        "batch=NAME policy=FILE.yaml",
        f"{SCORE} policy decisions promise",
        BATCH,
    ),
    "certify": VerbHelp(
        "audit accepted pictures until the promised share of rejects is proven",
        "batch=NAME",
        f"{SCORE} policy decisions calibration promise hardware.price_per_hour",
        BATCH,
    ),
    "export": VerbHelp(
        "package what was accepted, with provenance",
        "batch=NAME",
        "name brand batch images out key marks source_type credentials credentials_key "
        "credentials_command accept_licence burn merge hardware.price_per_hour",
        BATCH,
        helps=(
            (
                "name",
                "The name of the package. null: that of the experiment, else of the brand; of the batch where batch= "
                "is given without a brand or with experiment=.",
            ),
        ),
    ),
    "run": VerbHelp(
        "one experiment: train, plan, generate, score, gate, export, report",
        "experiment=demo",
        f"{RUN} batch traits prompts accept_licence plan generate encoder references foreign score policy decisions "
        "calibration observe engine hardware tracker key marks credentials credentials_key credentials_command "
        "watermark",
    ),
    "demo": VerbHelp("the same as run experiment=demo", ""),
    "compare": VerbHelp(
        "put runs side by side, or two batches of the same slots",
        "checkpoints/neon-*",
        takes=(("FOLDER ...", "Folders of runs, or two folders of batches whose slots have the same ids."),),
    ),
    "dashboard": VerbHelp(
        "make the W&B workspace of a project", "tracker.project=acme", "tracker.project tracker.entity"
    ),
    "replay": VerbHelp(
        "send W&B the lineage of offline runs",
        "checkpoints/demo-* data/batches/demo-*",
        takes=(("FOLDER ...", "Folders of runs and of batches."),),
    ),
    "inspect": VerbHelp(
        "say what a LoRA file is, and which programs ignore parts of it",
        "checkpoints/*/lora/*.safetensors",
        takes=(("FILE ...", "LoRA files (.safetensors), or folders with PEFT's adapter_config.json."),),
    ),
    "convert": VerbHelp(
        "make a plain LoRA of any LoRA file, for one program, and say how exact it is",
        "old-lokr.safetensors to=comfyui base=stabilityai/stable-diffusion-xl-base-1.0 rank=16",
        takes=(
            ("FILE", "A LoRA file (.safetensors), or a folder with PEFT's adapter_config.json."),
            ("to=diffusers|kohya|comfyui", "Whose names of layers the new file has."),
            (
                "base=BASE",
                "The model that the LoRA is for, a folder or a hub id: its layers' names are needed.",
            ),
            ("rank=N", "The rank of the new file. Needed where the file holds other kinds than plain LoRA."),
            ("out=NEW.safetensors", "The file to write; it must not exist. Left out: FILE.TO.safetensors beside FILE."),
        ),
    ),
    "marks": VerbHelp(
        "say which marks pictures carry, and which survive an attack",
        "data/exports/demo-v1 attack=true",
        takes=(
            ("FOLDER ...", "Packages, or folders of pictures."),
            ("attack=true", "Save copies as JPEG, scaled and so on, and count which marks are still read."),
            ("trust=FILE", "Certificates (PEM) of authorities that vouch for the signers of content credentials."),
            ("watermark=FILE", "The weights that read the watermark (.safetensors)."),
        ),
    ),
    "rebase": VerbHelp(
        "write a package's metadata with the address of its pictures",
        "data/exports/acme-v1 ipfs://CID/images ./out",
        takes=(
            ("PACKAGE", "The folder of an exported package."),
            ("ADDRESS", "Where its pictures are published."),
            ("OUT", "A new folder for the metadata."),
        ),
    ),
    "signals": VerbHelp(
        "propose trait weights for the next collection from sales and other signals",
        "sales.csv traits=collectible package=data/exports/neon-v1",
        takes=(
            ("FILE.csv", "A table of signals: a row for an item (column id) or for a value (columns trait and value)."),
            ("traits=FILE", "The traits file of the last plan, or its name in data/traits/."),
            ("package=FOLDER", "The exported package. Needed where rows name items by id: it tells their traits."),
            ("out=NEXT.yaml", "A new traits file to write. Left out: the proposal is only printed."),
            ("slots=N", "Slots of the next plan. Left out: as many as the package was planned with."),
        ),
    ),
    "verify": VerbHelp(
        "check a package or a certificate: bytes, counts, proof",
        "data/exports/demo-v1",
        takes=(
            ("PATH ...", "Packages, certificates (certificate.json, trait-certificate.json) or a commitment.json."),
            ("trust=FILE", "Certificates (PEM) of authorities that vouch for the signers of content credentials."),
            ("labels=FILE", "The labels of the lot (labels.sqlite), to see that they are those that the gate read."),
            ("watermark=FILE", "The weights that read the watermark (.safetensors)."),
        ),
    ),
}

NO_NAMES = (
    f"Of them these change no name: {', '.join(f'train.{key}' for key in sorted(NOT_IN_WEIGHTS - {'max_steps'}))}, and "
    "train.max_steps while train.schedule=constant. With batch= of a batch that is there none of them is needed: plan, "
    "generate and trial take from it what is not given, and the others read it."
)


def help_overview() -> str:
    """The text of `stylegate --help`: every verb with its purpose, and the exit codes."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.does}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "stylegate trains LoRAs in the style of a brand, judges pictures against it, and exports only what passes.",
            "",
            "usage: stylegate COMMAND key=value ...        stylegate COMMAND --help        stylegate COMMAND --cfg job",
            "",
            *lines,
            "",
            "exit codes: 0 pass, 2 bad input, 10 rejected by the policy, 11 review pending, 12 calibration stale,",
            "13 too little evidence for the promise, 1 internal error,",
            "143 stopped in training (SIGTERM), 130 stopped (Ctrl-C): the same command goes on where it was",
        ]
    )


def verb_help(verb: str) -> str:
    """The text of `stylegate VERB --help`: the verb's purpose, an example, and its keys with default and meaning."""
    entry = VERBS[verb]
    keys = entry.keys.split()
    lines = [f"stylegate {verb}: {entry.does}", "", f"example: stylegate {verb} {entry.example}".rstrip(), ""]
    lines += [f"  {word}\n      {meaning}" for word, meaning in entry.takes]
    defaults = configuration.config_as_dict(configuration.Config())
    for dotted, spec in configuration.config_fields_by_key().items():
        if verb_keys_contain(keys, dotted):
            value: Any = defaults
            for part in dotted.split("."):
                value = value[part]
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            meaning = dict(entry.helps).get(dotted, spec.metadata["help"])
            lines.append(f"  {configuration.spell_import_file_as_import(dotted)}={shown}\n      {meaning}")
    for group in [g for g in configuration.GROUPS if keys and (g == "experiment" or verb_keys_contain(keys, g))]:
        lines.append(f"  {group}={'|'.join(sorted(p.stem for p in (configuration.CONF / group).glob('*.yaml')))}")
    if finding := [key for key in entry.finds.split() if not verb_keys_contain(keys, key)]:
        lines += ["", f"  {' '.join(finding)}"]
        lines += ["      These name what was trained, planned and drawn: give every command the same ones."]
        lines += textwrap.wrap(NO_NAMES, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def verb_reads_key(verb: str, name: str) -> bool:
    """Whether the verb reads this key, or a key of this group. An experiment has keys of all verbs."""
    keys = f"{VERBS[verb].keys} {VERBS[verb].finds}".split()
    return verb_keys_contain(keys, name) or (name == "experiment" and bool(keys))


def verb_keys_contain(keys: Sequence[str], name: str) -> bool:
    """Whether a key is in `keys`, the keys that a verb reads.

    A part stands for all its keys: `train` for train.max_steps. A group is in the list if one of its keys is.
    """
    inside = name in configuration.GROUPS and any(key.startswith(f"{name}.") for key in keys)
    return inside or any(name == key or name.startswith(f"{key}.") for key in keys)


def unread_key_problem(verb: str, name: str) -> str | None:
    """The problem with a key that the verb would ignore; None if it reads the key."""
    if verb_reads_key(verb, name):
        return None
    return f"{name}: {verb} does not read it; it is read by {', '.join(v for v in VERBS if verb_reads_key(v, name))}"


def shell_arguments_naming_run(config: configuration.Config) -> str:
    """The arguments that differ from the defaults, of those that name a run, as one text for a shell, such as
    "brand=neon train.batch_size=4".
    """
    given, usual = configuration.config_as_dict(config), configuration.config_as_dict(configuration.Config())
    found = []
    for dotted in configuration.config_fields_by_key():
        value, default = config_value_of_dotted_key(given, dotted), config_value_of_dotted_key(usual, dotted)
        if verb_keys_contain(RUN.split(), dotted) and value != default:
            plain = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
            found.append(f"{dotted}={shlex.quote(plain.replace(' ', '') if isinstance(value, list) else plain)}")
    return " ".join(found)


def config_value_of_dotted_key(config: dict[str, Any], dotted: str) -> Any:
    """The value of a dotted key in a configuration as plain data."""
    for part in dotted.split("."):
        config = config[part]
    return config
