"""Known rejects of an audit: copies of pictures of the lot that were spoilt on purpose, hidden among the others.

What a person does with them measures the person (eval/promise/eyes.py), and says nothing of the lot. Each has one fault
away from its edges, a square of a quarter of the side: a part that is missing, smeared or upside down. Nobody would
export such a picture, whatever the brand and whatever the picture was before. Who looks at the picture sees it: what is
measured is attention, and faults that are harder to see (a trait, a hand) may be missed more often. Pictures that the
gate rejects would be no measure: whether the gate is right about them is not known.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from eval.lot.lot import Lot
from eval.promise.auditplan import AuditPlan, read_audit_terms
from stylegate import files, pictures
from stylegate.pictures import PictureError
from stylegate.words import counted

FOLDER = "audit-pictures"  # of the lot's results: what a worksheet shows, under names that tell nothing
SIDE = 0.25  # of the spoilt square, as a share of the picture's shorter side
VISIBLE = 24.0  # mean change of the square's values, of 255, from which on the fault counts as visible
PLACES = 40  # places that are tried for a fault
FORMATS = {".jpg": "JPEG", ".webp": "WEBP"}  # by what the content is, whatever the name says; all others: PNG


def square_of_border_colour(square: NDArray[np.uint8], border: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w, c] a square of one colour, `border` [c], that of the picture's edge, in place of `square`: a part that is
    missing.
    """
    return np.broadcast_to(border, square.shape).astype(np.uint8)


def blurred_square(square: NDArray[np.uint8], border: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w, c] the square after a Gaussian blur whose deviation is a fourth of its side."""
    return np.asarray(Image.fromarray(square).filter(ImageFilter.GaussianBlur(len(square) / 4)))


def square_upside_down(square: NDArray[np.uint8], border: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w, c] the square, turned by 180 degrees."""
    return square[::-1, ::-1]


FAULTS = (square_of_border_colour, blurred_square, square_upside_down)


def picture_with_fault(image: Image.Image, random: np.random.Generator) -> Image.Image | None:
    """A copy of the picture with one of FAULTS, chosen at random, in a square at a random place, away from the edges.

    None if the fault cannot be seen at any place, as in a blank picture.
    """
    pixels = np.array(image)
    height, width = pixels.shape[:2]
    side = max(2, round(SIDE * min(height, width)))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    border = np.median(edge, axis=0).astype(np.uint8)
    for kind in random.permutation(len(FAULTS)):
        for _ in range(PLACES):
            top, left = (int(random.integers(n // 5, max(n // 5, n - n // 5 - side) + 1)) for n in (height, width))
            square = pixels[top : top + side, left : left + side]
            changed = FAULTS[kind](square, border)
            if np.abs(pixel_values_times_alpha(changed) - pixel_values_times_alpha(square)).mean() >= VISIBLE:
                pixels[top : top + side, left : left + side] = changed
                return Image.fromarray(pixels)
    return None


def pixel_values_times_alpha(square: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[h, w, c] the values, 0 to 255, of pixels; with alpha (c = 4) colours times alpha, since nobody sees others."""
    values = square.astype(float)
    if square.shape[2] == 4:
        values[..., :3] *= values[..., 3:] / 255
    return values


def spoilt_picture_file_bytes(path: Path, seed: str) -> bytes | None:
    """The content of a spoilt copy of a picture's file, in sRGB without a colour profile: JPEG or WebP where the file's
    content is that, else PNG. None if it cannot be made.
    """
    try:
        content = pictures.read_picture_file_bytes(path)
        image = pictures.decode_picture(content, background=None).image
    except (OSError, PictureError):
        return None
    found = picture_with_fault(image, np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:15], 16)))
    if found is None:
        return None
    sink, kind = io.BytesIO(), FORMATS.get(pictures.suffix_by_content(content), "PNG")
    found.save(sink, kind, **({} if kind == "PNG" else {"quality": 95}))
    return sink.getvalue()


def audit_picture_path_by_sha256(out: Path, sha256: str, like: Path) -> Path:
    """The path in the folder `out` at which an audit shows a picture, known reject or not: the first 16 digits of its
    sha256, with the suffix of `like`.
    """
    return out / FOLDER / f"{sha256[:16]}{like.suffix.lower()}"


def plan_with_known_rejects_and_why(lot: Lot, plan: AuditPlan, wanted: int) -> tuple[AuditPlan, str]:
    """(plan, why): the plan with known rejects hidden in it, and a sentence on why it has them, or why it has none.

    An audit that was begun keeps what it began with. A new one has `wanted` known rejects, made of the pictures that
    the audit would come to last, unless the lot is too small to prove anything with them. Their files are written.
    """
    begun = plan.audit_terms in read_audit_terms(lot.out)
    if begun and not plan.known_rejects:
        return plan, "the reviewers are taken to be right, as it was settled when this audit began"
    if not begun and not wanted:
        return plan, "the reviewers are taken to be right, since promise.known_rejects is 0"
    paths = {lot.sha256[name]: path for name, path in lot.files}
    if begun:
        restore_missing_known_reject_files(lot.out, plan.known_rejects.items(), paths, plan.order_seed)
    else:
        planned = write_known_rejects_and_return_plan(lot.out, plan, wanted, paths)
        if planned is None:
            text = f"{counted(len(plan.lot), 'picture')} are too few to measure them"
            return plan, f"the reviewers are taken to be right: {text} with {wanted} known rejects"
        plan = planned
    return plan, f"{len(plan.known_rejects)} known rejects are hidden among the pictures, and measure who reviews them"


def write_known_rejects_and_return_plan(
    out: Path, plan: AuditPlan, wanted: int, paths: dict[str, Path]
) -> AuditPlan | None:
    """The plan with `wanted` known rejects, whose files are written; None if a lot without any reject could not be
    proven good with them.
    """
    if len(plan.lot) < wanted:
        return None
    if replace(plan, known_rejects={f"{n:064x}": "" for n in range(wanted)}).fewest_labels() is None:
        return None
    made: dict[str, str] = {}
    for source in reversed(plan.labelling_order):
        content = spoilt_picture_file_bytes(paths[source], f"{plan.order_seed}:{source}")
        sha256 = hashlib.sha256(content).hexdigest() if content else ""
        if content and sha256 not in (*plan.lot, *made):
            made[sha256] = source
            files.write_atomically(audit_picture_path_by_sha256(out, sha256, paths[source]), content)
        if len(made) == wanted:
            return replace(plan, known_rejects=made)
    return None


def restore_missing_known_reject_files(
    out: Path, known: Iterable[tuple[str, str]], paths: dict[str, Path], seed: str
) -> None:
    """Write the files of known rejects (sha256, sha256 of the original) again that are gone.

    One that cannot be made as it was is left out, and not shown any more.
    """
    for sha256, source in known:
        path = audit_picture_path_by_sha256(out, sha256, paths[source])
        content = None if path.exists() else spoilt_picture_file_bytes(paths[source], f"{seed}:{source}")
        if content and hashlib.sha256(content).hexdigest() == sha256:
            files.write_atomically(path, content)


def pictures_with_known_rejects(
    order: Sequence[str], first: int, known: Iterable[str], window: int, who: str, count: int | None = None
) -> list[str]:
    """The next `count` pictures of `order` (None: all), with those of the `known` rejects (sha256) that come before
    them.

    `order` holds all pictures that are still to come, `known` the known rejects that the reviewer `who` has not
    answered; `first` pictures came before. Each known reject has a random place, another one for each reviewer, among
    the next `window` pictures, or among all that are left if they are fewer, so that the known rejects never come in
    one run. Where no picture is left, they come alone.
    """
    if not order:
        return sorted(known)
    places: dict[int, list[str]] = {}
    for sha256 in known:
        draw = int(hashlib.sha256(f"known:{who}:{sha256}".encode(errors="replace")).hexdigest()[:8], 16) / 2**32
        place = (int(draw * window) - first) % window  # the same picture of the lot, whenever one asks
        places.setdefault(place % len(order), []).append(sha256)
    return [shown for number, sha256 in enumerate(order[:count]) for shown in (*sorted(places.get(number, [])), sha256)]
