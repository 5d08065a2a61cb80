"""Say which marks pictures carry: a package's, or those of any folder, whoever made them.

    stylegate marks data/exports/acme-v1
    stylegate marks ./pictures attack=true           and how many marks outlive what others do to pictures
    stylegate marks ./pictures trust=authority.pem   whom to trust with content credentials
    stylegate marks data/exports/acme-v1 watermark=trustmark.safetensors    also the watermark, of drawn pictures

A mark is a source type in XMP, content credentials (C2PA), or a watermark in the pixels. Nothing is written, and no
network is asked.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from eval.package.credentials import c2pa_context
from eval.package.layout import IMAGES, is_bag, payload_folder
from eval.package.marks import (
    NOTHING_KNOWN,
    MarksOfPicture,
    credential_states_in_words,
    load_watermark_weights_from_argument,
    marks_in_words,
    marks_report,
    read_marks_of_each_picture,
    read_picture_marks,
    trusted_certificates_pem_from_argument,
    weights_digests_and_seed_by_path,
)
from stylegate.errors import ConfigError, DataError
from stylegate.listing import list_folder
from stylegate.pictures import CORES, FORMATS
from stylegate.watermark import Watermark

NAMED = 10  # pictures that are listed
USAGE = "stylegate marks data/exports/demo-v1, or a folder of pictures; with attack=true, trust= or watermark=FILE."


def marks(words: Sequence[str]) -> int:
    """Print which marks the pictures of each package or folder carry. Returns 0. Raises ConfigError for other words,
    DataError for a folder without pictures.
    """
    folders = [Path(word) for word in words if "=" not in word]
    unknown = [word for word in words if "=" in word and not word.startswith(("trust=", "attack=", "watermark="))]
    attack = [word.removeprefix("attack=") for word in words if word.startswith("attack=")]
    if not folders or unknown or not set(attack) <= {"true", "false"}:
        raise ConfigError("marks takes folders, attack=true, trust=FILE and watermark=FILE", unknown, USAGE)
    trust, watermark = trusted_certificates_pem_from_argument(words), load_watermark_weights_from_argument(words)
    for folder in folders:
        paths = picture_paths_of_package_or_folder(folder)
        made_from = weights_digests_and_seed_by_path(folder, watermark) if watermark else NOTHING_KNOWN
        found = read_marks_of_each_picture(paths, trust, watermark, made_from)
        print(f"{folder}: {marks_in_words(marks_report(found))}")
        for line in credential_states_in_words(found):
            print(f"  {line}")
        print_broken_credentials(paths, found)
        if "true" in attack:
            for name, change in ATTACKS.items():
                print(f"  {surviving_marks_in_words(paths, name, change, watermark, made_from)}")
    return 0


def picture_paths_of_package_or_folder(folder: Path) -> list[Path]:
    """The pictures of a package, or of a folder. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", next_step=USAGE)
    found = list_folder(payload_folder(folder) / IMAGES if is_bag(folder) else folder).pictures
    if not found:
        raise DataError(f"{folder} holds no pictures", next_step=USAGE)
    return found


def print_broken_credentials(paths: Sequence[Path], found: Sequence[MarksOfPicture]) -> None:
    """Print the first NAMED pictures whose content credentials are broken, and why."""
    states = [(path, picture.credentials) for path, picture in zip(paths, found, strict=True)]
    broken = [f"{path}: {state.why}" for path, state in states if state.state and not state.is_picture_as_signed]
    for line in [*broken[:NAMED], *([f"and {len(broken) - NAMED} more"] if len(broken) > NAMED else [])]:
        print(f"  broken: {line}")


def as_jpeg_of_quality_75(image: Image.Image) -> bytes:
    """The picture as the bytes of a JPEG file of quality 75."""
    return image_file_bytes(image.convert("RGB"), "JPEG", quality=75)


def image_bytes_at_half_size(image: Image.Image) -> bytes:
    """The picture at half its width and height, as the bytes of an image file."""
    return image_file_bytes(image.resize((image.width // 2, image.height // 2)), image_format_or_png(image))


def image_bytes_cropped_by_tenth(image: Image.Image) -> bytes:
    """The picture without a tenth of its width and height at each side, as the bytes of an image file."""
    across, down = image.width // 10, image.height // 10
    return image_file_bytes(
        image.crop((across, down, image.width - across, image.height - down)), image_format_or_png(image)
    )


def image_format_or_png(image: Image.Image) -> str:
    """The format of the picture's file; PNG where Pillow reads that format and does not write it (PSD)."""
    return image.format if image.format in Image.SAVE else "PNG"


ATTACKS: dict[str, Callable[[Image.Image], bytes]] = {
    "saving as JPEG of quality 75": as_jpeg_of_quality_75,
    "resizing to half": image_bytes_at_half_size,
    "cropping a tenth off each side": image_bytes_cropped_by_tenth,
}


def image_file_bytes(image: Image.Image, kind: str, **settings: Any) -> bytes:
    """The picture as the bytes of an image file in the format `kind`, such as "PNG"; `settings` are those of PIL's
    save.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def surviving_marks_in_words(
    paths: Sequence[Path],
    name: str,
    change: Callable[[Image.Image], bytes],
    watermark: Watermark | None = None,
    made_from: Mapping[Path, Mapping[str, Any]] = NOTHING_KNOWN,
) -> str:
    """A sentence on how many pictures still carry each mark after `change`, which is called `name`. A picture that
    cannot be decoded counts as without marks.
    """
    context = c2pa_context({})

    def marks_after_attack(path: Path) -> MarksOfPicture:
        try:
            with Image.open(path, formats=FORMATS) as image:
                return read_picture_marks(change(image), context, watermark, made_from.get(path))
        except (OSError, ValueError):
            return read_picture_marks(b"", context)

    with ThreadPoolExecutor(CORES) as pool:
        left = list(pool.map(marks_after_attack, paths))
    typed = sum(bool(picture.source_types) for picture in left)
    signed = sum(picture.credentials.is_picture_as_signed for picture in left)
    said = f"after {name}: of {len(left)} pictures {typed} say their source type, {signed} have whole credentials"
    return f"{said}, {sum(picture.watermarked for picture in left)} hold their watermark" if watermark else said
