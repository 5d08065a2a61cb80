"""What is judged: a planned batch or any folder of pictures. And what it is compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.batch.place import Slot, batch_folder, existing, is_attempt, read_plan, record_of, split_name
from eval.encoder import encoder_key
from eval.scorers import aesthetic
from stylegate import brandset, files, pictures
from stylegate.config import Config
from stylegate.digests import sha256s
from stylegate.errors import ConfigError, DataError

VERSION = "scores-12"  # raise it when a score's computation changes


@dataclass(frozen=True, slots=True)
class Subject:
    images: Path
    out: Path
    named: list[tuple[str, Path]]  # name relative to `images`, in the order in which duplicates are decided
    sha256: dict[str, str]  # by name; an unreadable file has ""
    slots: dict[str, Slot] | None  # by name; None for a foreign folder
    record: dict[str, Any]  # batch.json; empty for a foreign folder

    def digest(self) -> str:
        return files.digest([[name, self.sha256[name]] for name, _ in self.named])


@dataclass(frozen=True, slots=True)
class Comparison:
    """References show the style; training pictures and those exported before must not come back."""

    references: list[tuple[str, Path]]
    training: list[tuple[str, Path]]
    exported: list[tuple[str, Path]]  # of other batches; by package and name
    background: str
    trigger: str
    called: str  # for people
    traits: dict[str, dict[str, str]]  # what is known of references, by name
    learned: dict[str, dict[str, str]]  # the same of training pictures of the references' own brand


def subject_of(config: Config, remember: bool = True) -> Subject:
    """The pictures that the words name. Raises DataError if there are none.

    Without `remember` the bytes of every picture are read now (stylegate/digests.py).
    """
    if config.images and not config.batch:
        return foreign(config, remember)
    folder = files.BATCHES / config.batch if config.batch else batch_folder(config)[0]
    record = record_of(folder)
    images = folder / "images"
    ours = [p for p in images.glob("*.png") if is_attempt(p.name)] if images.is_dir() else []
    found = sorted(ours, key=lambda path: split_name(path.name))
    if not found:
        raise DataError(f"{files.shown(folder)} has no pictures", next_step="stylegate generate with the same words.")
    by_number = {slot.slot: slot for slot in read_plan(folder)}
    slots = {p.name: by_number[split_name(p.name)[1]] for p in found if split_name(p.name)[1] in by_number}
    named = [(p.name, p) for p in found if p.name in slots]
    if not named:
        raise DataError(f"no picture in {files.shown(images)} is of the plan", next_step="stylegate generate first.")
    return Subject(images, folder, named, hashes(named, remember), slots, record)


def foreign(config: Config, remember: bool) -> Subject:
    """Any folder; nothing is written into it."""
    images = Path(config.images or "").expanduser().resolve()
    if not images.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name a folder of pictures.")
    named = [(readable(p.relative_to(images)), p) for p in pictures.find(images)]
    if not named:
        raise DataError(
            f"images={config.images} holds no pictures", next_step=f"they end in {sorted(pictures.SUFFIXES)}."
        )
    digests = hashes(named, remember)
    content = files.digest([[name, digests[name]] for name, _ in named])
    out = Path(config.out).expanduser().resolve() if config.out else files.BATCHES / f"{images.name}-{content[:8]}"
    if out == images or out.is_relative_to(images):
        raise DataError(f"out={config.out} lies in the folder that is judged", next_step="give another out=.")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "score.json").exists())):
        raise DataError(f"out={config.out} holds something else", next_step="give an empty or new folder.")
    return Subject(images, out, named, digests, None, {})


def readable(path: Path) -> str:
    """The name in UTF-8; bytes that are none are shown escaped, so that one odd name does not block a lot."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def hashes(named: list[tuple[str, Path]], remember: bool = True) -> dict[str, str]:
    """sha256 by name; "" for a file that cannot be read (it becomes an error verdict)."""
    found = sha256s([path for _, path in named], remember)
    return {name: digest for (name, _), digest in zip(named, found, strict=True)}


def comparison_of(config: Config, subject: Subject) -> Comparison:
    """References and training pictures: references=, else the brand's test/ and train/; none of them is fine too."""
    brand_name = config.brand or subject.record.get("words", {}).get("brand")
    references: list[tuple[str, Path]] = []
    training: list[tuple[str, Path]] = []
    background, trigger, called = "#ffffff", "", ""
    traits: dict[str, dict[str, str]] = {}
    learned: dict[str, dict[str, str]] = {}
    if brand_name:
        folder = brandset.locate(brand_name)
        brand = brandset.brand_of(folder)
        background, trigger, called = brand.background, brand.trigger, f"{brand.name}'s test/"
        (references, traits), (training, learned) = split_files(folder, "test"), split_files(folder, "train")
    if config.references:
        learned = {}
        folder = files.named(config.references, files.BRANDS, "references")
        if (folder / "brand.yaml").is_file():
            background, called = brandset.brand_of(folder).background, f"{folder.name}'s test/"
            references, traits = split_files(folder, "test")
        else:
            traits = {}
            references = [(readable(p.relative_to(folder)), p) for p in pictures.find(folder)]
            called = config.references
        if not references:
            raise DataError(f"references={config.references} holds no pictures")
    return Comparison(references, training, exported(subject), background, trigger, called, traits, learned)


def exported(subject: Subject) -> list[tuple[str, Path]]:
    """Pictures of all packages in data/exports/, but the same pictures of the same batch or folder.

    Raises DataError for a package that is damaged: what it held must not come again either.
    """
    found, own, mine, problems = [], made_from(subject), set(subject.sha256.values()), []
    for package in sorted(files.EXPORTS.glob("[!.]*-v[0-9]*")):
        record, images = package / "provenance.json", package / "images"
        if not record.is_file() or not images.is_dir():
            problems.append(f"{files.shown(package)} has no provenance.json or no images/")
            continue
        made = files.read_json(record, "the package's provenance", "made_from")["made_from"]
        if not isinstance(made, dict):
            problems.append(f"{files.shown(record)}: made_from is no record")
            continue
        same = all(made.get(key) == own[key] for key in own if key != "plan_sha256")  # a plan may have grown since
        listed = [(f"{package.name}/{readable(path.relative_to(images))}", path) for path in pictures.find(images)]
        digests = hashes(listed) if same else {}
        found += [(name, path) for name, path in listed if digests.get(name) not in mine]
    if problems:
        raise DataError("packages that are damaged:", problems, "stylegate verify says how; mend or remove them.")
    return found


def made_from(subject: Subject) -> dict[str, Any]:
    """Digests of what the pictures were drawn with, and of where a foreign folder lies: a package's provenance."""
    facts, plan = subject.record.get("facts", {}), subject.out / "plan.parquet"
    return {
        "base_sha256": facts.get("base"),
        "lora_sha256": facts.get("lora"),
        "data_sha256": facts.get("brand"),
        "plan_sha256": files.sha256(plan) if plan.exists() else None,
        "generate": facts.get("generate"),
        "precision": subject.record.get("precision"),
        "folder_sha256": None if subject.slots else files.digest(str(subject.images)),
    }


def split_files(folder: Path, part: str) -> tuple[list[tuple[str, Path]], dict[str, dict[str, str]]]:
    """The pictures that a split lists, and their traits. Raises DataError if rows and files do not fit."""
    problems: list[str] = []
    found = brandset.listed(folder, part, problems)
    brandset.refuse(folder, brandset.Findings(problems))
    traits = {name: row.get("traits") or {} for name, (row, _) in found.items()}
    return [(name, path) for name, (_, path) in sorted(found.items())], traits


def planned_traits(subject: Subject, compared: Comparison) -> dict[str, list[str]]:
    """Every value of each planned trait that the plan or the brand's pictures show, sorted."""
    values: dict[str, set[str]] = {}
    for slot in (subject.slots or {}).values():
        for trait, value in slot.traits.items():
            values.setdefault(trait, set()).add(value)
    for known in (*compared.traits.values(), *compared.learned.values()):
        for trait in values.keys() & known.keys():
            values[trait].add(known[trait])
    return {trait: sorted(options) for trait, options in sorted(values.items())}


def scores_key(config: Config, subject: Subject, compared: Comparison) -> str:
    """Digest of everything that the scores depend on; needs no model and no torch. Raises DataError for no head."""
    head = [files.sha256(path)] if (path := head_file(config)) else []
    if config.score.labels:
        labels = aesthetic.read_labels(existing(config.score.labels, "score.labels"))
        head = [[name, files.sha256(place), good] for name, place, good in labels]
    others = [sorted(hashes(part).items()) for part in (compared.references, compared.training, compared.exported)]
    slots = {name: [slot.prompt, slot.traits] for name, slot in (subject.slots or {}).items()}
    return files.digest(
        [
            VERSION,
            subject.digest(),
            encoder_key(config.encoder),
            others,
            compared.background,
            compared.traits,
            compared.learned,
            head,
            slots,
        ]
    )


def head_file(config: Config) -> Path | None:
    """The aesthetic head that is named. Raises ConfigError for none of that name, and for two heads at once."""
    if config.score.aesthetic_head and config.score.labels:
        raise ConfigError("score.aesthetic_head and score.labels name two heads", next_step="give one of them.")
    if not config.score.aesthetic_head:
        return None
    return files.named(config.score.aesthetic_head, files.HEADS, "score.aesthetic_head", ".safetensors")


def scores_at_hand(subject: Subject, key: str) -> bool:
    """Whether scores.parquet is of these pictures, references and encoder, and as it was written."""
    record = subject.out / "score.json"
    if not record.exists():
        return False
    held = files.read_json(record, "the scores' record", "key", "tables")
    return held["key"] == key and held["tables"] == table_digests(subject.out)


def table_digests(out: Path) -> dict[str, str]:
    tables = {name: out / f"{name}.parquet" for name in ("scores", "references")}
    return {name: files.sha256(path) if path.is_file() else "" for name, path in tables.items()}
