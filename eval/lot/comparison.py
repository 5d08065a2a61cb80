"""What a lot is compared with: references, training pictures, pictures that were exported before."""

from dataclasses import dataclass
from pathlib import Path

from eval.lot.subject import Subject, hashes, made_from, notes_on, readable
from stylegate import brandset, files, pictures
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.listing import list_folder, masks


@dataclass(frozen=True, slots=True)
class Comparison:
    """References show the style; training pictures and those exported before must not come back."""

    references: list[tuple[str, Path]]
    training: list[tuple[str, Path]]
    exported: list[tuple[str, Path]]  # of other batches; by package and name
    background: str
    alpha: str  # brand.yaml's: what pictures must be, "flatten" opaque, "keep" as most references are
    trigger: str
    called: str  # for people
    traits: dict[str, dict[str, str]]  # what is known of references, by name
    learned: dict[str, dict[str, str]]  # the same of training pictures of the references' own brand
    notes: tuple[str, ...] = ()  # on the files of a folder of references that are no references


def comparison_of(config: Config, subject: Subject) -> Comparison:
    """References and training pictures: references=, else the brand's test/ and train/; none of them is fine too."""
    brand_name = config.brand or subject.record.get("words", {}).get("brand")
    references: list[tuple[str, Path]] = []
    training: list[tuple[str, Path]] = []
    background, alpha, trigger, called = "#ffffff", "keep", "", ""
    notes: tuple[str, ...] = ()
    traits: dict[str, dict[str, str]] = {}
    learned: dict[str, dict[str, str]] = {}
    if brand_name:
        folder = brandset.locate(brand_name)
        brand = brandset.brand_of(folder)
        background, alpha, trigger = brand.background, brand.alpha, brand.trigger
        called = f"{brand.name}'s test/"
        (references, traits), (training, learned) = split_files(folder, "test"), split_files(folder, "train")
    if config.references:
        learned = {}
        folder = files.named(config.references, files.BRANDS, "references")
        if (folder / "brand.yaml").is_file():
            brand = brandset.brand_of(folder)
            background, alpha, called = brand.background, brand.alpha, f"{folder.name}'s test/"
            references, traits = split_files(folder, "test")
        else:
            traits = {}
            listing = list_folder(folder)
            aside = masks(listing.pictures)
            references = [(readable(p.relative_to(folder)), p) for p in listing.pictures if p not in set(aside)]
            notes = notes_on(folder, "no references", listing, aside)
            called = config.references
        if not references:
            raise DataError(f"references={config.references} holds no pictures")
    earlier = exported(subject)
    return Comparison(references, training, earlier, background, alpha, trigger, called, traits, learned, notes)


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
