"""Is a brand set right? Every problem and warning of its pictures and captions at once."""

import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylegate import pictures, similarity
from stylegate.brandset import (
    ENLARGED,
    FRAMED,
    KEPT_ALPHA,
    NO_BRAND,
    SMALL,
    SPLITS,
    TEXT,
    UNKNOWN_LICENCE,
    Brand,
    BrandSet,
    CheckReport,
    raise_if_problems,
    read_brand_file,
    read_brand_set,
    valid_rows_and_picture_files,
)
from stylegate.captionfaults import picture_count_and_names
from stylegate.config import Config
from stylegate.errors import DataError
from stylegate.picturefaults import find_box_inside_frame, is_blurred_or_smoothly_enlarged, whole_block_side
from stylegate.textmarks import has_text_near_edge


class PixelHashAndPictureSignature(NamedTuple):
    """What is kept of a checked picture to compare it with others: the sha256 of its pixels, and its signature."""

    content: str  # sha256 of its pixels, upright and in sRGB
    signature: NDArray[np.uint8]  # stylegate/pictures.py
    shorter_side: int  # pixels
    shorter_side_before_enlarging: int  # the same, where enlarging cannot be seen


class CheckedPicture(NamedTuple):
    """What is found in a picture by itself."""

    digest: PixelHashAndPictureSignature
    size: tuple[int, int]  # width and height, in pixels
    notes: tuple[str, ...]  # conversions, frames, text near an edge, enlargement


def read_checked_brand_set(folder: Path) -> tuple[BrandSet, CheckReport]:
    """Check a brand set, then read it. Returns it with the findings; raises DataError that lists every problem."""
    findings = check_brand_set_files(folder)
    raise_if_problems(folder, findings)
    return read_brand_set(folder), findings


def check_brand_set_files(folder: Path) -> CheckReport:
    """Check every file of the brand set in `folder`, trusting none of them. Returns the problems and remarks."""
    findings = CheckReport()
    try:
        brand = read_brand_file(folder)
    except DataError as error:
        findings.problems += error.problems or [error.summary]
        brand = NO_BRAND
    if brand.alpha == "keep":
        findings.remarks.append(KEPT_ALPHA)
    if brand.licence == "unknown":
        findings.remarks.append(UNKNOWN_LICENCE)
    digests: dict[str, PixelHashAndPictureSignature] = {}
    by_hash: dict[str, list[str]] = defaultdict(list)
    for part in SPLITS:
        digests |= check_brand_set_split(folder, part, brand, findings, by_hash)
    note_pictures_below_half_median_size(digests, findings)
    for same in by_hash.values():
        if len(same) > 1:
            findings.problems.append(f"{', '.join(same)}: the same picture {len(same)} times; keep one")
    twins = {name for same in by_hash.values() for name in same[1:]}
    for group in near_duplicate_groups({n: one for n, one in digests.items() if n not in twins}):
        if len({name.split("/")[0] for name in group}) > 1:
            findings.problems.append(f"{', '.join(group)}: near-duplicates across splits; move them into one")
        else:
            findings.remarks.append(f"{', '.join(group)}: near-duplicates")
    return findings


def check_brand_set_split(
    folder: Path, part: str, brand: Brand, findings: CheckReport, by_hash: dict[str, list[str]]
) -> dict[str, PixelHashAndPictureSignature]:
    """Check rows, files, captions and pictures of one split; problems are added to `findings`.

    Returns digest and signature, by name, of the pictures that could be decoded.
    """
    found = valid_rows_and_picture_files(folder, part, findings.problems)
    for path in pictures.find_pictures(folder / part) if (folder / part).is_dir() else []:
        if (name := path.relative_to(folder).as_posix()) not in found:
            findings.problems.append(f"{name}: no caption in metadata.jsonl")
    lacking = sum(brand.trigger.lower() not in row["text"].lower() for row, _ in found.values())
    if brand.trigger and lacking:
        findings.remarks.append(f'{part}: "{brand.trigger}" is put before {lacking} of {len(found)} captions')
    return check_picture_files_into_report(
        {name: path for name, (_, path) in found.items()}, brand.background, findings, by_hash
    )


def check_picture_files_into_report(
    named: dict[str, Path],
    background: str,
    findings: CheckReport,
    by_hash: dict[str, list[str]] | None = None,
    crop: bool = False,
) -> dict[str, PixelHashAndPictureSignature]:
    """Decode each picture. Broken pictures and exact duplicates become problems in `findings`; conversions, frames,
    text near an edge and enlarged pictures become remarks.

    Returns digest and signature, by name, of those that decode; with `crop` those without frames. If `by_hash` is
    given, duplicates are not reported: names are added to it by hash, and the caller reports them.
    """
    digests: dict[str, PixelHashAndPictureSignature] = {}
    named_by = defaultdict(list) if by_hash is None else by_hash
    with ThreadPoolExecutor(pictures.CORES) as pool:
        checked = list(pool.map(lambda path: checked_picture_or_problem(path, background, crop), named.values()))
    for name, found in zip(named, checked, strict=True):
        if isinstance(found, str):
            findings.problems.append(f"{name}: {found}")
            continue
        digests[name] = found.digest
        named_by[f"{found.digest.content} {found.size}"].append(name)
        for note in found.notes:
            findings.noted[note].append(name)
    if by_hash is None:
        same = [names for names in named_by.values() if len(names) > 1]
        findings.problems += [f"{', '.join(n)}: the same picture {len(n)} times; keep one" for n in same]
    return digests


def note_pictures_below_half_median_size(
    digests: dict[str, PixelHashAndPictureSignature], findings: CheckReport
) -> None:
    """Note in `findings` the pictures whose shorter side is less than half the median of the whole set."""
    usual = np.median([one.shorter_side for one in digests.values()]) if digests else 0
    if small := [name for name, one in digests.items() if one.shorter_side < usual / 2]:
        findings.noted[SMALL] += small


def checked_picture_or_problem(path: Path, background: str, crop: bool = False) -> CheckedPicture | str:
    """What is found in the picture at `path`, decoded on `background`; a text that says why it cannot be decoded. With
    `crop` its digest, signature and size are those without its frame.
    """
    try:
        picture = pictures.decode_picture(pictures.read_picture_file_bytes(path), background)
    except (pictures.PictureError, OSError) as error:
        return str(error)
    box = find_box_inside_frame(picture.image)
    image = picture.image.crop(box) if crop and box else picture.image
    notes = (
        *picture.notes,
        *[FRAMED] * bool(box),
        *[ENLARGED] * is_blurred_or_smoothly_enlarged(image),
        *[TEXT] * has_text_near_edge(image),
    )
    content = hashlib.sha256(image.tobytes()).hexdigest()
    side, times = min(image.size), 2 if ENLARGED in notes else whole_block_side(image)
    digest = PixelHashAndPictureSignature(content, similarity.signature_of_picture(image), side, side // times)
    return CheckedPicture(digest, image.size, notes)


def near_duplicate_groups(digests: dict[str, PixelHashAndPictureSignature]) -> list[list[str]]:
    """Groups of names of pictures that are nearly the same, each with two names or more.

    A picture belongs to a group if it is nearly the same as any one member.
    """
    if not digests:
        return []
    labels = similarity.near_duplicate_group_numbers(np.stack([one.signature for one in digests.values()]))
    groups: dict[int, list[str]] = defaultdict(list)
    for label, name in zip(labels.tolist(), digests, strict=True):
        groups[label].append(name)
    return [group for group in groups.values() if len(group) > 1]


def remarks_on_long_captions(brand_set: BrandSet, config: Config) -> list[str]:
    """A remark if the base's text encoder would cut captions of any split; an empty list if not."""
    from stylegate.families import FAMILIES

    every = [
        (item.file, text)
        for part in SPLITS
        for item in brand_set.splits[part]
        for text in item.all_captions_of_picture()
    ]
    limit, lengths = FAMILIES[config.family.name].token_limit_and_caption_lengths(
        config.base, [brand_set.brand.prompt_with_trigger(text) for _, text in every]
    )
    cut = list(dict.fromkeys(file for (file, _), length in zip(every, lengths, strict=True) if length > limit))
    return (
        [f"captions longer than the text encoder's {limit} tokens, their end is cut: {picture_count_and_names(cut)}"]
        if cut
        else []
    )
