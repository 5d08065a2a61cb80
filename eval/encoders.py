"""Which encoder reads a brand how surely, and at what cost; the choice can be written into brand.yaml.

    stylegate encoders brand=acme encoders=miniature,ViT-L-14-quickgelu:openai,timm:vit_small_patch14_dinov2.lvd142m
    stylegate encoders brand=acme encoders=... choose=true      brand.yaml names the best one, and the gate uses it
    stylegate encoders references=./brand encoders=...          of a folder that shows the style; prints the table

For each encoder a reader of the brand is learned and measured as the gate does it (eval/scorers/brand.py): every
reference is read by a reader that has not seen it. Encoders whose names are joined by + are measured together. The
gate's reader sees pixels too, which are the same for every encoder, so the choice rests on a reader that sees the
encoder's numbers alone. It takes as long as some 1,000 pictures take to encode; what was encoded once is kept. Without
encoders= those are compared that are known here: the miniature, and the one in brand.yaml.
"""

import re
import time
from pathlib import Path
from typing import NamedTuple

import yaml
from PIL import Image

from eval.lot.comparison import (
    DEFAULT_ALPHA,
    DEFAULT_BACKGROUND,
    ComparisonPictures,
    given_foreign_pictures_by_style,
    given_references,
    pictures_and_traits_of_split,
)
from eval.lot.lot import Lot, sha256_by_name
from eval.measuring.columns import measure_lot_and_comparison
from eval.measuring.encoder import LoadedEncoder, encode_pictures, load_encoder
from eval.measuring.encodername import DEFAULT, encoder_name_with_absolute_path
from eval.measuring.record import StyleReadability
from eval.policy.lines import MIN_REFERENCES
from eval.scorers import brand as reader
from stylegate import brandset, files, hardware, pictures
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, ModelError, StylegateError

TIMED = 16  # readable references that the cost is measured on
AS_SURE = 0.01  # of the lower bound: encoders that differ by less are equally sure, and the fastest is chosen


class EncoderMeasurement(NamedTuple):
    """How surely one encoder tells the brand from other styles, and how long it takes."""

    name: str
    readability: StyleReadability
    alone: float  # lower bound of the area against the nearest foreign set, by a reader without pixels
    seconds: float  # of a picture, as the gate encodes it


def encoders(config: Config) -> int:
    """Measure each encoder, print the table; with choose=true write the choice into brand.yaml. Returns 0.

    Raises ConfigError without a brand or references, DataError for too few references, ModelError naming every encoder
    that cannot be used, and DataError where none is sure enough to be chosen; nothing is written then.
    """
    if not config.brand and not config.references:
        raise ConfigError(
            "encoders needs a brand, or a folder of references",
            next_step="stylegate encoders brand=acme encoders=NAME,NAME; or references=./FOLDER in place of the brand.",
        )
    if config.choose and not config.brand:
        raise ConfigError(
            "choose=true writes into the brand.yaml of a brand, and no brand is given",
            next_step="leave choose out and give the gate encoder=NAME; or give brand=NAME.",
        )
    folder, brand, compared = brand_folder_and_comparison_pictures(config)
    known = brand.encoder if brand else None
    names = list(dict.fromkeys(config.encoders.split(",") if config.encoders else [DEFAULT, known or DEFAULT]))
    found: list[EncoderMeasurement] = []
    problems: list[str] = []
    for name in names:
        try:
            found.append(measure_encoder(config, name, folder, compared))
        except StylegateError as error:
            problems.append(error.summary)
    chosen = fastest_of_surest_encoders(found)
    for line in encoder_table_lines(found, chosen):
        print(line)
    if problems:
        raise ModelError("encoders that cannot be used:", problems, "leave them out, or mend their names.")
    if config.choose:
        write_encoder_into_brand_file(folder, chosen)
    return 0


def brand_folder_and_comparison_pictures(config: Config) -> tuple[Path, brandset.Brand | None, ComparisonPictures]:
    """The folder and brand.yaml of the brand, or of references=, and the pictures that show the style: those of
    references=, else the brand's test/. Of a folder without a brand.yaml the second is None.

    Raises DataError for fewer than MIN_REFERENCES, and for what is named and cannot be read.
    """
    training: list[tuple[str, Path]] = []
    brand = given = None
    folder = Path()
    if config.brand:
        folder = brandset.brand_folder(config.brand)
        brand = brandset.read_brand_file(folder)
        training = pictures_and_traits_of_split(folder, "train")[0]
    if config.references:
        given = given_references(config.references)
        brand = given.brand or brand
        folder = folder if config.brand else given.folder
    references = given.pictures if given else pictures_and_traits_of_split(folder, "test")[0]
    if len(references) < MIN_REFERENCES:
        place = f"references={config.references}" if given else files.display_path(folder)
        raise DataError(
            f"{place} has {len(references)} references{'' if given else ' in test/'}; {MIN_REFERENCES} are needed",
            next_step="give more pictures of this style."
            if given
            else "put more pictures into test/, or make the brand set again with test=N.",
        )
    foreign = given_foreign_pictures_by_style(config, references, training) if config.foreign else {}
    background, alpha = (brand.background, brand.alpha) if brand else (DEFAULT_BACKGROUND, DEFAULT_ALPHA)
    name = brand.name if brand else ""
    called = given.called if given else name
    compared = ComparisonPictures(
        references, [], [], background, alpha, "", called, {}, {}, brand=name, foreign=foreign
    )
    return folder, brand, compared


def measure_encoder(config: Config, name: str, folder: Path, compared: ComparisonPictures) -> EncoderMeasurement:
    """How surely the encoder `name` tells the brand from foreign styles, and how many seconds it takes for a picture.

    Raises ModelError if the encoder cannot be loaded, DataError where references cannot be read.
    """
    encoder = load_encoder(name, hardware.set_threads_and_choose_device(config.hardware))
    named = compared.references  # judged by themselves: a lot needs a picture that can be read
    lot = Lot(folder, folder, named, sha256_by_name(named), None, None)
    measured, _ = measure_lot_and_comparison(config, lot, compared, encoder, quiet=True)
    if not measured.enough_references:
        raise DataError(f"fewer than {MIN_REFERENCES} references of {compared.references_name} can be read")
    reader.column(measured)
    assert measured.readability is not None and measured.redrawn is not None
    seen = measured.at_foreign_size(measured.references)
    alone = (
        reader.learn_brand_classifier(seen, measured.redrawn, measured.foreign_sets, pixels=False).separations[0].low
    )
    read = set(measured.references.names)
    timed = [path for name, path in compared.references if name in read][:TIMED]
    images = [pictures.decode_picture(path.read_bytes(), compared.background).image for path in timed]
    passes = 1 if seen.embeddings is measured.references.embeddings else 2
    seconds = passes * encoding_seconds_per_picture(encoder, images) + sum(
        encoding_seconds_per_picture(o, images) for o in encoder.others
    )
    return EncoderMeasurement(name, measured.readability, alone, seconds)


def encoding_seconds_per_picture(encoder: LoadedEncoder, images: list[Image.Image]) -> float:
    """Seconds in which the encoder encodes one picture, the mean over `images`; preparing pictures is not counted."""
    shown = [encoder.preprocessing.resized_and_cropped_pixels(image) for image in images]
    encode_pictures(encoder, shown[:1])  # the first pass sets up what later ones use
    began = time.perf_counter()
    encode_pictures(encoder, shown)
    return (time.perf_counter() - began) / len(shown)


def fastest_of_surest_encoders(found: list[EncoderMeasurement]) -> EncoderMeasurement | None:
    """Of the encoders that can read the style, the fastest of those that are as sure as the surest one, both without
    pixels; None if none can read it.
    """
    able = [one for one in found if one.readability.readable]
    surest = max((one.alone for one in able), default=0.0)
    return min((one for one in able if one.alone >= surest - AS_SURE), key=lambda one: one.seconds, default=None)


def encoder_table_lines(found: list[EncoderMeasurement], chosen: EncoderMeasurement | None) -> list[str]:
    """The lines of the printed table: one for each encoder, the surest first, and one that says which is best."""
    wide = max([len(one.name) for one in found], default=0)
    titles = "alone, at least  with pixels  at least  s a picture  nearest foreign set"
    lines = [f"{'encoder':<{wide}}  {titles}"] if found else []
    for one in sorted(found, key=lambda one: -one.alone):
        told = one.readability.separations[one.readability.nearest]
        unable = "" if one.readability.readable else " (the style can NOT be read)"
        numbers = f"{one.alone:>15.3f} {told.area:>12.3f} {told.low:>9.3f} {one.seconds:>12.4f}"
        lines.append(f"{one.name:<{wide}}  {numbers}  {one.readability.nearest}{unable}")
    return [*lines, f"best: {chosen.name}" if chosen else "best: none of them can read this style"]


def write_encoder_into_brand_file(folder: Path, chosen: EncoderMeasurement | None) -> None:
    """Write `encoder` into brand.yaml and leave its other lines as they are. Raises DataError if nothing is chosen."""
    if not chosen:
        raise DataError(
            "no encoder reads this style surely enough, so none is written into brand.yaml",
            next_step="give more references, or other encoders=.",
        )
    before, path = brandset.read_brand_file(folder), folder / "brand.yaml"
    name = encoder_name_with_absolute_path(chosen.name)
    kept = [line for line in path.read_text().splitlines() if not re.match(r"encoder\s*:", line)]
    text = "\n".join([*kept, yaml.safe_dump({"encoder": name}, width=10_000).strip(), ""])
    if yaml.safe_load(text) != yaml.safe_load(path.read_text()) | {"encoder": name}:  # a form that lines do not follow
        text = yaml.safe_dump(before.model_dump() | {"encoder": name}, sort_keys=False, allow_unicode=True)
    files.write_atomically(path, text)
    print(f"{files.display_path(path)}: encoder {name}; the gate uses it where encoder= is not given")
