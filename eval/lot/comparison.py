"""What a lot is compared with: references, training pictures, pictures that were exported before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from eval.lot.batch import attempt_and_slot, is_attempt_file_name
from eval.lot.lot import Lot, notes_on_skipped_files, relative_name, sha256_by_name
from eval.measuring.record import OF_BASE
from eval.package.layout import IMAGES, payload_folder, read_picture_rows
from stylegate import brandset, files
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.listing import list_folder, mask_files
from stylegate.words import name_without_case_and_accents

DEFAULT_BACKGROUND, DEFAULT_ALPHA = "#ffffff", "keep"  # where no brand.yaml says otherwise
FEWEST_FOREIGN = 8  # pictures that show a style
BASE, FEWEST_OF_BASE = "base", 16  # folder of the base's own pictures in a batch's; of fewer, too little is known

Name = TypeVar("Name")


class DecidedPicturesFile(NamedTuple):
    """Path and sha256 of the file of decided pictures that a policy names; the gate's readers learn from them."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class ComparisonPictures:
    """What a lot is compared with: references, which show the style; training and exported pictures, for copies."""

    references: list[tuple[str, Path]]
    training: list[tuple[str, Path]]
    exported: list[tuple[str, Path]]  # of earlier packages, by package and name; none of this very lot
    background: str
    alpha: str  # brand.yaml's: what pictures must be, "flatten" opaque, "keep" as most references are
    trigger: str
    references_name: str  # for people
    traits: dict[str, dict[str, str]]  # what is known of references, by name
    learned: dict[str, dict[str, str]]  # the same of training pictures of the references' own brand
    notes: tuple[str, ...] = ()  # on files that are no references, and on packages that are left aside
    brand: str = ""  # name of the brand that the lot is of; "" where none is known
    foreign: dict[str, list[tuple[str, Path]]] = field(default_factory=dict)  # by style; the base's own are one
    exported_slots: dict[str, int] = field(default_factory=dict)  # of this batch's own slots, by the name in `exported`
    decided: DecidedPicturesFile | None = None  # pictures that people decided about, where the policy names such a file


def comparison_pictures_without_decided_ones(config: Config, lot: Lot) -> ComparisonPictures:
    """What a lot is compared with, but for decided pictures: references (references=, else the brand's test/), training
    pictures, pictures of earlier packages, other styles.

    Every part may be empty. Raises DataError for what is named and cannot be read, or holds no pictures.
    """
    brand_name = config.brand or (lot.record.words.brand if lot.record else None)
    references: list[tuple[str, Path]] = []
    training: list[tuple[str, Path]] = []
    background, alpha, trigger, called, name = DEFAULT_BACKGROUND, DEFAULT_ALPHA, "", "", ""
    notes: tuple[str, ...] = ()
    traits: dict[str, dict[str, str]] = {}
    learned: dict[str, dict[str, str]] = {}
    if brand_name:
        folder = brandset.brand_folder(brand_name)
        brand = brandset.read_brand_file(folder)
        background, alpha, trigger, name = brand.background, brand.alpha, brand.trigger, brand.name
        called = f"{brand.name}'s test/"
        (references, traits), (training, learned) = (
            pictures_and_traits_of_split(folder, "test"),
            pictures_and_traits_of_split(folder, "train"),
        )
    if config.references:
        learned = {}
        given = given_references(config.references)
        references, traits, notes, called = given.pictures, given.traits, given.notes, given.called
        if brand := given.brand:
            background, alpha, name = brand.background, brand.alpha, name or brand.name
    earlier, left_aside, of_slots = pictures_of_earlier_packages(lot, name)
    notes = (*notes, *left_aside)
    foreign = given_foreign_pictures_by_style(config, references, training) if config.foreign else {}
    foreign |= base_pictures_as_foreign_set(lot.out / BASE) if lot.record else {}
    planned = [slot.traits for slot in (lot.slots or {}).values()]
    traits, learned = traits_spelled_as_planned(traits, planned), traits_spelled_as_planned(learned, planned)
    return ComparisonPictures(
        references,
        training,
        earlier,
        background,
        alpha,
        trigger,
        called,
        traits,
        learned,
        notes,
        name,
        foreign,
        of_slots,
    )


class GivenReferences(NamedTuple):
    """What references= names: the pictures of a folder, or test/ of a brand set."""

    pictures: list[tuple[str, Path]]  # (name, path), one at least
    traits: dict[str, dict[str, str]]  # what is known of them, by name
    notes: tuple[str, ...]  # on files of the folder that are no references
    called: str  # for people
    folder: Path
    brand: brandset.Brand | None  # brand.yaml, where it is a brand set


def given_references(name_or_path: str) -> GivenReferences:
    """The pictures of references=, the name of a brand or the path of a folder. Raises DataError if there are none."""
    folder = files.resolve_name_or_path(name_or_path, files.BRANDS, "references")
    if (folder / "brand.yaml").is_file():
        pictures, traits = pictures_and_traits_of_split(folder, "test")
        brand, called = brandset.read_brand_file(folder), f"{folder.name}'s test/"
        found = GivenReferences(pictures, traits, (), called, folder, brand)
    else:
        listing = list_folder(folder)
        aside = mask_files(listing.pictures)
        pictures = [(relative_name(folder, path), path) for path in listing.pictures if path not in set(aside)]
        notes = notes_on_skipped_files(folder, "no references", listing, aside)
        found = GivenReferences(pictures, {}, notes, name_or_path, folder, None)
    if not found.pictures:
        raise DataError(f"references={name_or_path} holds no pictures")
    return found


def base_pictures_as_foreign_set(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """The pictures in a folder as the foreign set OF_BASE; no set if there are fewer than FEWEST_OF_BASE."""
    named = [(path.name, path) for path in files.sorted_paths_matching_pattern(folder, "*.png")]
    return {OF_BASE: named} if len(named) >= FEWEST_OF_BASE else {}


def given_foreign_pictures_by_style(
    config: Config, references: list[tuple[str, Path]], training: list[tuple[str, Path]]
) -> dict[str, list[tuple[str, Path]]]:
    """The pictures of foreign=, by style: a subfolder is a style, and what lies beside the subfolders is one.

    What lies beside them has the name of the folder itself, with "itself" behind it where a subfolder is called so.

    Raises DataError for a folder without pictures, for styles of fewer than FEWEST_FOREIGN, and for pictures that are
    the brand's own.
    """
    folder = Path(config.foreign or "").expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"foreign={config.foreign} is not a folder", next_step="name a folder of other styles.")
    named = [(relative_name(folder, path), path) for path in list_folder(folder).pictures]
    beside = relative_name(folder.parent, folder)
    while any(name.startswith(f"{beside}/") for name, _ in named):
        beside += " itself"
    found: dict[str, list[tuple[str, Path]]] = {}
    for name, path in named:
        style, _, rest = name.partition("/") if "/" in name else (beside, "", name)
        found.setdefault(style, []).append((rest, path))
    if not found:
        raise DataError(f"foreign={config.foreign} holds no pictures", next_step="name a folder of other styles.")
    if OF_BASE in found:  # it would be taken for the pictures that the base draws of a batch's prompts
        raise DataError(f'foreign={config.foreign}: "{OF_BASE}" names another set', next_step="rename this subfolder.")
    few = [f"{style}: {len(named)}" for style, named in found.items() if len(named) < FEWEST_FOREIGN]
    if few:
        raise DataError(
            f"foreign={config.foreign}: styles of fewer than {FEWEST_FOREIGN} pictures:",
            few,
            "add pictures, or put them all in one folder.",
        )
    of_brand = (sha256_by_name(references), sha256_by_name(training))  # both may hold one name
    own = {sha256: name for digests in of_brand for name, sha256 in digests.items() if sha256}
    shared = [
        f"{style}/{name} is {own[sha256]}"
        for style, named in found.items()
        for name, sha256 in sha256_by_name(named).items()
        if sha256 in own
    ]
    if shared:
        raise DataError(
            f"foreign={config.foreign} holds pictures that are the brand's own:", shared, "remove them from there."
        )
    return found


def pictures_of_earlier_packages(lot: Lot, brand: str) -> tuple[list[tuple[str, Path]], list[str], dict[str, int]]:
    """(name, path) of the pictures in earlier packages that must not come again; notes on packages that are left out;
    and by such a name the number of the slot that the picture was drawn for, where it is one of this batch.

    Packages of another brand are left out. In a package of this lot (`is_package_of_same_lot`), pictures with the
    same bytes (of a planned batch: for the same slot) are the same pictures and not copies. A batch knows its packages
    also by pictures that it drew once and no longer has. Raises DataError for a damaged package, unless it is known to
    be of another brand.
    """
    found: list[tuple[str, Path]] = []
    slots: dict[str, int] = {}
    notes, problems, ours = [], [], set(lot.sha256.values())
    slots_here = lot.slots or {}  # those of a preview have no files yet
    own = {(slot.slot, lot.sha256[name]) for name, slot in slots_here.items() if name in lot.sha256}
    drawn = ours.union(*(lot.drawn or {}).values())
    for package in filter(Path.is_dir, files.sorted_paths_matching_pattern(files.EXPORTS, "[!.]*-v[0-9]*")):
        if not any(package.iterdir()):
            notes.append(f"{files.display_path(package)} is empty: there is nothing to compare with")
            continue
        made_for, is_planned, pictures_there, problem = read_package_brand_and_digests(package)
        if brand and made_for and made_for != brand:
            notes += [f"{problem}; it is of another brand ({made_for}) and is left aside"] if problem else []
        elif problem:
            problems.append(problem)
        else:
            # Our lot may hold the files that were judged, or those that left, which have marks.
            known = {name: left if left in ours else judged for name, (left, judged) in pictures_there.items()}
            theirs = set(known.values())
            is_own = is_package_of_same_lot(ours, theirs) or is_package_of_same_lot(drawn, theirs)
            names = filter(is_attempt_file_name, known if is_own and is_planned and lot.slots else ())
            of_slots = {name: attempt_and_slot(name)[1] for name in names}
            is_here = {n: (of_slots[n], sha) in own if n in of_slots else sha in ours for n, sha in known.items()}
            left = [name for name in known if not (is_own and is_here[name])]
            found += [(f"{package.name}/{name}", payload_folder(package) / IMAGES / name) for name in left]
            slots |= {f"{package.name}/{name}": of_slots[name] for name in left if name in of_slots}
    if problems:
        raise DataError("packages that are damaged:", problems, "stylegate verify says how; mend or remove them.")
    return found, notes, slots


def is_package_of_same_lot(lot: set[str], package: set[str]) -> bool:
    """Whether a package was made from this lot, or the lot from the package. Both are sets of the pictures' sha256.

    True if more than half of the package is in the lot, or all of the lot is in the package. A single picture that
    occurs in both is taken for a copy.
    """
    both = lot & package
    return bool(both) and (both == lot or 2 * len(both) > len(package))


def read_package_brand_and_digests(package: Path) -> tuple[str, bool, dict[str, tuple[str, str]], str]:
    """(the brand that a package names, "" for none; whether it is of a planned batch; by a picture's name the sha256 of
    its file in the package and of the file that was judged, before it got marks; what is damaged, "" for nothing).

    Digests of pictures that did not change since they were last read are remembered (stylegate/digests.py).
    """
    place, images = files.display_path(package), payload_folder(package) / IMAGES
    try:
        record = files.read_json(payload_folder(package) / "provenance.json", "the provenance", "counts")
    except (DataError, OSError):
        return "", False, {}, f"{place} has no provenance.json that can be read"
    brand = record.get("brand")
    brand = brand if isinstance(brand, str) else ""
    made_from = record.get("made_from")
    is_planned = isinstance(made_from, dict) and bool(made_from.get("plan_sha256"))
    try:
        rows = {str(row["file_name"]).removeprefix(f"{IMAGES}/"): row for row in read_picture_rows(package)}
        listed = {name: (str(row["sha256"]), str(row["judged_sha256"])) for name, row in rows.items()}
        found = sha256_by_name([(name, images / name) for name in listed])
    except (DataError, OSError, ValueError) as error:
        return brand, is_planned, {}, f"{place}: {error}"
    wrong = [name for name, sha256 in found.items() if sha256 != listed[name][0]]
    if wrong or not found:
        what = f"{len(wrong)} of its pictures are missing or changed, {wrong[0]!r} first" if wrong else "it has no rows"
        return brand, is_planned, {}, f"{place}: {what}"
    return brand, is_planned, listed, ""


def pictures_and_traits_of_split(folder: Path, part: str) -> tuple[list[tuple[str, Path]], dict[str, dict[str, str]]]:
    """((name, path) of each picture of a split, sorted by name; traits by name of the picture, {} where none are
    known).

    `part` is train, validation or test. Raises DataError if rows and files do not fit.
    """
    problems: list[str] = []
    found = brandset.valid_rows_and_picture_files(folder, part, problems)
    brandset.raise_if_problems(folder, brandset.CheckReport(problems))
    traits = {name: row.get("traits") or {} for name, (row, _) in found.items()}
    return [(name, path) for name, (_, path) in sorted(found.items())], traits


def known_values_by_planned_trait(lot: Lot, compared: ComparisonPictures) -> dict[str, list[str]]:
    """By planned trait, all its values in the plan and in what is known of the brand's pictures, sorted."""
    values: dict[str, set[str]] = {}
    for slot in (lot.slots or {}).values():
        for trait, value in slot.traits.items():
            values.setdefault(trait, set()).add(value)
    for known in (*compared.traits.values(), *compared.learned.values()):
        for trait in values.keys() & known.keys():
            values[trait].add(known[trait])
    return {trait: sorted(options) for trait, options in sorted(values.items())}


def traits_spelled_as_planned(
    known: Mapping[Name, Mapping[str, str]], planned: Iterable[Mapping[str, str]]
) -> dict[Name, dict[str, str]]:
    """Traits of pictures, with names and values spelled as in `planned` where they differ by case, width, combining
    marks or spaces only: a plan's Hat: Crown is what the brand's pictures call hat: crown. Others stay.
    """
    names: dict[str, str] = {}
    values: dict[tuple[str, str], str] = {}
    for traits in planned:
        for trait, value in traits.items():
            names[name_without_case_and_accents(trait)] = trait
            values[trait, name_without_case_and_accents(value)] = value

    def respelled_traits_of_picture(traits: Mapping[str, str]) -> dict[str, str]:
        named = ((names.get(name_without_case_and_accents(trait), trait), value) for trait, value in traits.items())
        return {trait: values.get((trait, name_without_case_and_accents(value)), value) for trait, value in named}

    return {name: respelled_traits_of_picture(traits) for name, traits in known.items()}
