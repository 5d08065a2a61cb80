"""Make a brand set from a folder of captioned pictures.

    stylegate brand name=acme images=DIR licence=own-work      data/brands/acme/, or out=

Captions stand beside the pictures or in tables (stylegate/captions.py). Every file of the folder is used, named as not
used with the reason, or refused. Pictures are copied as they are, under numbers, and split by content: the same
pictures give the same split, and near-duplicates stay together in train/.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from pydantic import ValidationError

from stylegate import files, pictures, sheets
from stylegate.brandcheck import (
    PixelHashAndPictureSignature,
    check_picture_files_into_report,
    near_duplicate_groups,
    note_pictures_below_half_median_size,
)
from stylegate.brandset import (
    CUT_OFF,
    FRAMED,
    FURTHER,
    SPLITS,
    UNKNOWN_LICENCE,
    Brand,
    CheckReport,
    pydantic_errors_of_brand_in_words,
    raise_if_problems,
)
from stylegate.captionfaults import problems_of_captions
from stylegate.captions import UNREADABLE, CaptionsAndTraits, FolderCaptions, FolderToReadCaptionsFrom, read_captions
from stylegate.config import Config
from stylegate.configcheck import config_error_listing_problems
from stylegate.errors import DataError
from stylegate.listing import CAPTIONS, FolderListing, list_folder, mask_files
from stylegate.picturefaults import without_frame
from stylegate.similarity import most_varied_indices
from stylegate.splits import (
    FOR_CHECKPOINTS,
    FOR_LINE,
    choose_held_out_pictures,
    remarks_on_splits,
    remarks_on_words_missing_in_training,
)
from stylegate.words import counted

SHOWN = 96  # pictures of a split on the contact sheet
CELL = 256  # pixels a side at most, kept of each
MIN_PICTURES = 3  # one for each split
TABLE = "a CSV or JSON Lines table with the columns file_name and text"
FEW_NAMED = 8  # pictures without a caption; of more there is one line for all
NAMED = 20  # pictures, or groups of near-duplicates, that one line names
REGULAR = {"reg", "regularization", "regularisation"}  # folders of pictures that show what the brand is not
REPEATS = re.compile(r"[0-9]+_")  # kohya's folders: how often a picture counts, and a word
NOUNS = {"train": "learned from", "validation": "chooses", "test": "the gate's references"}


def make_brand_set(config: Config) -> int:
    """Make a brand set in data/brands/, or out=, from a folder of captioned pictures; print remarks on them. Returns 0.
    The set is written whole or not at all.

    Raises DataError listing every problem.
    """
    if not config.name or not config.images:
        raise DataError("brand needs a name and a folder of pictures", next_step="stylegate brand name=acme images=DIR")
    source, target = Path(config.images).expanduser(), files.BRANDS[0] / config.name
    if config.out:
        target = Path(config.out).expanduser().resolve()
    if not source.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name the folder that holds the pictures.")
    shipped = files.ROOT / "data" / "brands" / config.name
    for existing in (target, *([] if config.out else [shipped])):  # two brands of one name could not be told apart
        if existing.exists():
            step = "choose another name, or remove it first."
            raise DataError(f"{files.display_path(existing)} exists already", next_step=step)
    listing = list_folder(source)
    findings = CheckReport()
    found, given = pictures_and_captions_of_folder(source, listing, findings)
    if not found:
        raise DataError(f"{source} holds no pictures", next_step="name the folder that holds the pictures.")

    brand = brand_from_arguments(config, source.resolve().name)
    digests = check_source_pictures_into_report(source, found, given, brand, findings, config.crop)
    every = {
        n: caption.texts for n, caption in given.by_picture.items() if n in digests and caption.texts != UNREADABLE
    }
    findings.remarks += problems_of_captions(every, brand.trigger)
    if config.crop and FRAMED in findings.noted:
        findings.noted[CUT_OFF] = findings.noted.pop(FRAMED)
    for remark in [*findings.all_remarks(), *remarks_on_near_duplicates(digests)]:
        print(f"note: {remark}")
    raise_if_problems(source, findings)

    if config.keep and config.keep < len(digests):
        kept = names_of_most_varied_pictures(digests, config.keep)
        digests = {name: one for name, one in digests.items() if name in kept}
        left_out = [name for name in found if name not in digests]
        why = f"not among the {config.keep} most varied"
        findings.unused |= dict.fromkeys(left_out, why)
        print(f"note: {why}, not used: {', '.join(left_out)}")
    texts = {name: ", ".join(every[name]) for name in digests}
    splits = assign_splits(digests, texts, config.test, config.validation)
    listed = [path.relative_to(source).as_posix() for paths in listing for path in paths]

    def write_brand_set_and_source_table(partial: Path) -> None:
        write_brand_set_files(partial, brand, splits, found, given.by_picture, config.crop)
        write_table_of_source_files(partial, sorted(listed), findings)

    with files.exclusive_lock(target):
        files.write_folder_atomically(target, write_brand_set_and_source_table)
    learned, held_out = ([texts[n] for part in parts for n in splits[part]] for parts in (SPLITS[:1], SPLITS[1:]))
    for remark in [
        *remarks_on_splits(len(splits["validation"]), len(splits["test"])),
        *remarks_on_words_missing_in_training(learned, held_out),
    ]:
        print(f"note: {remark}")
    first = next(name for names in splits.values() for name in names)
    print(f"note: pictures have numbers for names; `original` in metadata.jsonl names the source, such as {first!r}")
    said = f'trigger phrase "{brand.trigger}", licence {brand.licence}, alpha: {brand.alpha}'
    print(f"note: {said}; to change them, edit {files.display_path(target / 'brand.yaml')}")
    if brand.licence == "unknown":
        print(f"note: {UNKNOWN_LICENCE}")
    counts = ", ".join(f"{len(names)} {part}" for part, names in splits.items())
    print(f"what became of each file of {source}: {files.display_path(target / 'source-files.csv')}")
    print(f"brand set {config.name}: {counts}; look at {files.display_path(target / 'contact-sheet.png')}")
    return 0


def brand_from_arguments(config: Config, source: str) -> Brand:
    """The content of brand.yaml that the arguments of the command ask for; `source` says where the pictures come from.

    Raises ConfigError that lists every word which brand.yaml cannot hold.
    """
    trigger = f"{config.name} style" if config.trigger is None else config.trigger.strip()
    words = {"licence": config.licence.strip(), "alpha": config.alpha, "background": config.background}
    try:
        return Brand.model_validate({"name": config.name, "trigger": trigger, "source": source} | words)
    except ValidationError as error:
        raise config_error_listing_problems(pydantic_errors_of_brand_in_words(error), "brand") from None


def check_source_pictures_into_report(
    source: Path, found: dict[str, Path], given: FolderCaptions, brand: Brand, findings: CheckReport, crop: bool
) -> dict[str, PixelHashAndPictureSignature]:
    """Decode each picture; problems with pictures or captions are added to `findings`.

    Returns digest and signature, by name, of the pictures that could be decoded; with `crop` those without frames.
    """
    inside, captions = {}, given.by_picture
    for name, path in found.items():
        if path.resolve().is_relative_to(source.resolve()):
            inside[name] = path
        else:
            findings.problems.append(f"{name}: a link that leads outside the folder; copy the picture instead")
    digests = check_picture_files_into_report(inside, brand.background, findings, crop=crop)
    note_pictures_below_half_median_size(digests, findings)
    lacking = []
    for name in inside:
        if name in captions and not captions[name].first_caption:
            findings.problems.append(f"{name}: its caption is empty")
        elif name not in captions and given.whole and name in digests:
            lacking.append(name)
    if len(lacking) > FEW_NAMED:
        findings.problems.append(
            f"{len(lacking)} pictures have no caption (NAME.txt beside each, {TABLE}, or stylegate caption, which "
            f"writes them by a model): {joined_with_rest_counted(lacking, ', ')}"
        )
    else:
        findings.problems += [f"{name}: no caption ({Path(name).stem}.txt beside it, or {TABLE})" for name in lacking]
    if len(found) < MIN_PICTURES:
        findings.problems.append(f"{counted(len(found), 'picture')}; at least {MIN_PICTURES} (30 to 60 work well)")
    return digests


def remarks_on_near_duplicates(digests: Mapping[str, PixelHashAndPictureSignature]) -> list[str]:
    """A sentence that names the groups of pictures that are nearly the same, by their names in the source; an empty
    list if there are none. Exact copies count once, since they are problems of their own.
    """
    by_content = {one.content: name for name, one in [*digests.items()][::-1]}  # the first name of each
    groups = near_duplicate_groups({name: one for name, one in digests.items() if by_content[one.content] == name})
    if not groups:
        return []
    named = joined_with_rest_counted([" = ".join(group) for group in groups], "; ")
    return [
        f"{sum(map(len, groups))} pictures are nearly the same as others. They go into train/ together, so that none "
        "is held out beside its like, and are learned more than the rest. Look at each group: remove all but the best "
        f"of true copies, and keep pictures that differ in a small part: {named}"
    ]


def joined_with_rest_counted(texts: Sequence[str], separator: str) -> str:
    """The first NAMED texts, joined, and how many more there are: "a.png, b.png, and 3 more"."""
    more = [f"and {len(texts) - NAMED} more"] * (len(texts) > NAMED)
    return separator.join([*texts[:NAMED], *more])


def write_brand_set_files(
    folder: Path,
    brand: Brand,
    splits: dict[str, list[str]],
    found: dict[str, Path],
    captions: dict[str, CaptionsAndTraits],
    crop: bool = False,
) -> None:
    """Write pictures, captions, brand.yaml and contact sheet into an empty folder; with `crop` without their frames.

    Pictures get numbers for names: a name from elsewhere may be unsafe as a file name, or mean something to a loader.
    """
    numbers = {name: number for number, name in enumerate(sorted(name for names in splits.values() for name in names))}
    written: dict[str, Path] = {}
    used = [captions[name] for name in numbers]
    # The library `datasets` refuses a set of which one split has other columns, or values of other types, than another.
    several, traits = any(len(one.texts) > 1 for one in used), sorted({name for one in used for name in one.traits})
    for part, names in splits.items():
        rows = []
        for name in names:
            content = found[name].read_bytes()
            content = without_frame(content, brand.background) if crop else content
            file = f"{numbers[name]:04d}{pictures.suffix_by_content(content)}"
            written[name] = folder / part / file
            files.write_atomically(written[name], content)
            first, *more = captions[name].texts
            row = {"file_name": file, "text": first, "original": name}
            row |= {FURTHER: "\n".join(more)} if several else {}
            rows.append(row | ({"traits": {t: captions[name].traits.get(t, "") for t in traits}} if traits else {}))
        files.write_jsonl(folder / part / "metadata.jsonl", rows)
    files.write_atomically(
        folder / "brand.yaml", yaml.safe_dump(brand.model_dump(), sort_keys=False, allow_unicode=True)
    )
    sheet = [
        (
            f"{part}: {contact_sheet_heading(len(names))}, {NOUNS[part]}",
            [small_picture_for_contact_sheet(written[name], brand) for name in names[:SHOWN]],
        )
        for part, names in splits.items()
    ]
    files.write_atomically(folder / "contact-sheet.png", pictures.png_bytes(sheets.contact_sheet(sheet, columns=8)))


def write_table_of_source_files(folder: Path, names: Iterable[str], findings: CheckReport) -> None:
    """Write source-files.csv into the finished set `folder`: what became of each file in `names`, and why."""
    seen: dict[str, list[str]] = defaultdict(list)
    for kind, noted in findings.noted.items():
        for name in noted:
            seen[name].append(kind)
    used = {r["original"]: f"{part}/{r['file_name']}" for part, r in rows_of_all_splits(folder)}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "use", "remark"])
    for name in names:
        if name in used:
            writer.writerow([name, used[name], "; ".join(seen[name])])
        else:
            why = findings.unused.get(name)
            writer.writerow([name, "not used" if why else "captions", why or ""])
    files.write_atomically(folder / "source-files.csv", table.getvalue())


def rows_of_all_splits(folder: Path) -> Iterable[tuple[str, dict]]:
    """Yield (name of the split, row) for each row of the tables metadata.jsonl of a brand set."""
    for part in SPLITS:
        yield from ((part, row) for row in files.read_jsonl(folder / part / "metadata.jsonl"))


def pictures_and_captions_of_folder(
    source: Path, listing: FolderListing, findings: CheckReport
) -> tuple[dict[str, Path], FolderCaptions]:
    """The pictures to use (name -> path) and their captions; `findings` gets a remark on every other file, with the
    reason.
    """

    def paths_by_name(paths: Iterable[Path]) -> dict[str, Path]:
        return {path.relative_to(source).as_posix(): path for path in paths if path not in nameless}

    def add_remark_on_unused_files(paths: Iterable[Path], why: str) -> None:
        if names := list(paths_by_name(paths)):
            findings.remarks.append(f"{counted(len(names), 'file')} not used, {why}: {', '.join(names)}")
            findings.unused |= dict.fromkeys(names, why)

    def is_regularisation_picture(path: Path) -> bool:
        return any(part.lower() in REGULAR for part in path.relative_to(source).parts[:-1])

    nameless = {path for paths in listing for path in paths if not has_utf8_name(path.relative_to(source))}
    shown = sorted(ascii(path.relative_to(source).as_posix()) for path in nameless)
    findings.problems += [f"{name}: a name that is not UTF-8; rename the file" for name in shown]
    found = paths_by_name(path for path in listing.pictures if not is_regularisation_picture(path))
    beside = [path for path in listing.beside if path not in nameless and not is_regularisation_picture(path)]
    captions = read_captions(FolderToReadCaptionsFrom(source, found, beside), findings)
    aside = [
        path
        for name, path in paths_by_name(mask_files(list(found.values()))).items()
        if name not in captions.by_picture
    ]
    add_remark_on_unused_files(listing.hidden, "hidden or of the operating system")
    add_remark_on_unused_files(
        filter(is_regularisation_picture, (*listing.pictures, *listing.beside)),
        "regularisation pictures of kohya's tools",
    )
    add_remark_on_unused_files(aside, "masks of other pictures")
    text = [path for path in captions.unused if path.suffix.lower() in CAPTIONS]
    add_remark_on_unused_files(text, "no picture has this name")
    add_remark_on_unused_files([path for path in captions.unused if path not in text], "no caption of a picture")
    repeats = sorted({part for name in found for part in Path(name).parts[:-1] if REPEATS.match(part)})
    if repeats:
        findings.remarks.append(
            f"repeats in the names of folders are not used, each picture counts once: {', '.join(repeats)}"
        )
    return {name: path for name, path in found.items() if path not in aside}, captions


def has_utf8_name(path: Path) -> bool:
    """Whether the path is UTF-8 text, so that it can be written into a table; Linux also allows names that are not."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def small_picture_for_contact_sheet(path: Path, brand: Brand) -> Image.Image:
    """The picture in the file `path` on the brand's background, scaled down to at most CELL pixels a side."""
    image = pictures.decode_picture(path.read_bytes(), brand.background).image
    image.thumbnail((CELL, CELL))
    return image


def contact_sheet_heading(count: int) -> str:
    """The text that counts the pictures of a split: "4 pictures", or "120 pictures (the first 96 are shown)"."""
    return counted(count, "picture") + (f" (the first {SHOWN} are shown)" if count > SHOWN else "")


def names_of_most_varied_pictures(digests: dict[str, PixelHashAndPictureSignature], count: int) -> set[str]:
    """The names of the `count` pictures that differ most; of near-duplicates those are taken that were the
    largest before enlarging.
    """
    names = list(digests)
    kept = {names[i] for i in most_varied_indices(np.stack([one.signature for one in digests.values()]), count)}
    for group in near_duplicate_groups(digests):
        largest_first = sorted(group, key=lambda name: (-digests[name].shorter_side_before_enlarging, name not in kept))
        kept = kept - set(group) | set(largest_first[: len(kept & set(group))])
    return kept


def assign_splits(
    digests: dict[str, PixelHashAndPictureSignature],
    captions: Mapping[str, str],
    test: int | None = None,
    validation: int | None = None,
) -> dict[str, list[str]]:
    """Which pictures go into which split: their names, sorted, by split. `test` and `validation`, where given, are the
    sizes of these splits. `captions` are the texts of all pictures, by name.

    By default a third goes to test/ until there are 16, then a fifth of 80 and more: 16 references draw a usable
    line, 30 a sharp one. A sixth goes to validation/ until there are 8, then a tenth of 80 and more. They are held out
    evenly over the words of the captions, in an order by content: the same pictures give the same split.
    Near-duplicates go to train/ together. Raises DataError where too few pictures are left for a split.
    """
    together = {name for group in near_duplicate_groups(digests) for name in group}
    free = sorted((n for n in digests if n not in together), key=lambda n: digests[n].content)
    total = len(digests)
    if len(free) < 2:
        raise DataError("nearly all pictures are near-duplicates of each other: there is nothing to hold out")
    tests = test or max(1, min(max(min(FOR_LINE, total // 3), total // 5), len(free) - 1))
    checks = validation or max(1, min(max(min(FOR_CHECKPOINTS, total // 6), total // 10), len(free) - tests))
    if tests + checks > len(free) or tests + checks >= total:
        most = min(len(free), total - 1)
        what = f"test/ and validation/ want {tests + checks} pictures; {most} of {total} can be held out"
        step = "ask for fewer with test= and validation=, or give more pictures; near-duplicates stay in train/."
        raise DataError(what, next_step=step)
    held = choose_held_out_pictures(free, captions, tests + checks)
    parts = {"test": held[:tests], "validation": held[tests:], "train": sorted(digests.keys() - set(held))}
    return {part: sorted(parts[part]) for part in SPLITS}
