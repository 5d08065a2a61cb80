"""Brand sets: read for training and judging. stylegate/brand.py makes them, stylegate/brandcheck.py checks them whole.

A brand set is a Hugging Face imagefolder with the splits train/ (learned from), validation/ (chooses) and test/ (the
gate's references), each with metadata.jsonl (file_name, text, optional more_captions and traits), and brand.yaml. Sets
on disk are read here, strictly: the imagefolder loader guesses splits from file names and takes what it can.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from PIL import Image, ImageColor
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stylegate import files, hub, pictures, tables
from stylegate.captionfaults import picture_count_and_names
from stylegate.errors import DataError
from stylegate.words import counted

SPLITS = ("train", "validation", "test")
FURTHER = "more_captions"  # the key of metadata.jsonl for the captions after the first, one on each line


class Brand(BaseModel):
    """The content of brand.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    name: str = Field(min_length=1, description="The name of the brand, for people and file names.")
    trigger: str = Field(
        min_length=1, description="The phrase that calls the style; it is put before captions that lack it."
    )
    style: str = Field(default="", description="Words for the style, for people.")
    licence: str = Field(default="unknown", description="The licence of the pictures.")
    source: str = Field(default="unknown", description="Where the pictures come from.")
    alpha: Literal["flatten", "keep"] = Field(
        default="flatten",
        description="flatten: transparent art is laid on the background, and judged pictures must be opaque. "
        "keep: judged pictures must be transparent, or opaque, as most of the brand's references are.",
    )
    background: str = Field(default="#ffffff", description="The colour under transparency, such as #ffffff.")
    encoder: str = Field(
        default="", description="The encoder that judges this brand where encoder= is not given; empty: the miniature."
    )

    @field_validator("background")
    @classmethod
    def require_colour(cls, value: str) -> str:
        """Return the colour unchanged. Raises ValueError for a text that Pillow does not know as a colour."""
        try:
            ImageColor.getrgb(value)
        except ValueError:
            raise ValueError(f"{value!r} is no colour (such as #ffffff)") from None
        return value

    def background_for_drawn_pictures(self) -> str | None:
        """The colour that drawn pictures with alpha are laid on; None where the brand keeps alpha."""
        return self.background if self.alpha == "flatten" else None

    def prompt_with_trigger(self, text: str) -> str:
        """The caption with the trigger phrase before it, unless it holds the phrase already."""
        return text if self.trigger.lower() in text.lower() else f"{self.trigger}, {text}"


NO_BRAND = Brand.model_construct(name="", trigger="")  # where no brand is named: prompts stay as they are
UNKNOWN_LICENCE = (
    "the licence of the pictures is unknown: export refuses what is drawn from them until brand.yaml names it"
)
KEPT_ALPHA = (
    "alpha: keep asks for pictures that are transparent where the references are; "
    "only a LoRA for Qwen-Image 2.1 draws such pictures"
)


@dataclass(slots=True)
class BrandPicture:
    """One picture of a brand set."""

    file: str  # relative to the brand set, such as "train/0000.png"
    text: str
    traits: dict[str, str]
    path: Path
    sha256: str
    more_captions: tuple[str, ...] = ()

    def all_captions_of_picture(self) -> tuple[str, ...]:
        """All captions of the picture. A training step draws one of them; evaluation uses the first."""
        return (self.text, *self.more_captions)

    def unchanged_file_bytes(self) -> bytes:
        """The file's bytes. Raises DataError if they are no longer those that the set was read with."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{self.file} was changed while it was in use", next_step="run the same command again.")
        return content


@dataclass(kw_only=True, slots=True)
class BrandSet:
    """A brand and its pictures, by split: "train", "validation", "test"."""

    folder: Path
    brand: Brand
    splits: dict[str, list[BrandPicture]]

    def sha256_of_training_content(self) -> str:
        """sha256 over what training depends on: trigger, background and `alpha: keep` of brand.yaml, and the file name,
        content, captions and traits of every picture.
        """
        items = [[i.file, i.sha256, i.text, i.traits, *i.more_captions] for split in SPLITS for i in self.splits[split]]
        kept = ["alpha"] if self.brand.alpha == "keep" else []
        return files.canonical_sha256([self.brand.trigger, self.brand.background, items, *kept])


FRAMED, CUT_OFF, ENLARGED = "a frame or bars", "a frame or bars, cut off", "enlarged, or out of focus"
SMALL = "less than half as large as most others"
TEXT = "what looks like text near the upper or lower edge"
HANDLED = {
    "alpha": "laid on brand.yaml's background (alpha: flatten or keep there says what pictures to judge must be)",
    "CMYK": "converted to sRGB",
    "16-bit": "scaled to 8 bits",
    "floats": "read from 0 (black) to 1 (white)",
    "rotated as EXIF says": "done",
    "palette": "converted to RGB",
    "colour profile to sRGB": "done",
    "colour profile unusable": "left aside",
    FRAMED: "the LoRA learns them; stylegate brand crop=true cuts them off",
    CUT_OFF: "saved anew as PNG",
    ENLARGED: "the LoRA learns soft edges; give the originals",
    TEXT: "look at it: a signature or a watermark is learned; paint it over, crop, or leave the picture out",
    SMALL: "they may be enlarged in training (stylegate check base=... show=true says by how much); give larger ones, "
    "or leave them out",
}


@dataclass(slots=True)
class CheckReport:
    """What the check of a brand set found: a set with problems is refused; remarks are printed."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    noted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # pictures, by what was seen
    unused: dict[str, str] = field(default_factory=dict)  # files of a folder that are not used -> why

    def all_remarks(self) -> list[str]:
        """The remarks, and one for each kind of thing that was seen in pictures, with what is done about it, as
        sentences.
        """
        handled = [
            f"{kind}: {picture_count_and_names(names)}, {HANDLED.get(kind, 'handled')}"
            for kind, names in self.noted.items()
        ]
        return self.remarks + sorted(handled)


# Reading.


def brand_folder(name: str | None) -> Path:
    """The folder of a brand: shipped name, path, or hub:owner/name (copied into the cache once, through `datasets`).

    Raises ConfigError for an unknown name, and DataError without a name or if a file has it.
    """
    if not name:
        raise DataError("no brand given", next_step="brand=neon, or stylegate brand name=acme images=DIR to make one.")
    if name.startswith("hub:"):
        return download_brand_set_from_hub(name.removeprefix("hub:"))
    folder = files.resolve_name_or_path(name, files.BRANDS, "brand")
    if not folder.is_dir():
        raise DataError(f"brand={name} is a file", next_step="name the folder of a brand set.")
    return folder


def download_brand_set_from_hub(name: str) -> Path:
    """The folder of the hub's data set `name` as a brand set in the cache; it is downloaded and written at the first
    call.

    Raises DataError if it cannot be loaded, or is not a brand set.
    """
    import datasets

    target = files.CACHE / "brands" / name.replace("/", "--")
    if target.exists():
        return target
    hub.go_offline_if_hub_unreachable()
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # network, name, format: whatever the hub client raises
        what = f"brand=hub:{name} cannot be loaded: {hub.first_line_of_error(error)}"
        raise DataError(what, next_step=hub.WITHOUT_NETWORK) from None
    write_brand_set_from_dataset(loaded, name, target)
    return target


def write_brand_set_from_dataset(loaded: Any, name: str, target: Path) -> None:
    """Write a `datasets.DatasetDict` as a brand set. Raises DataError if it lacks a split, pictures or captions.

    Where rows have different traits, `datasets` has given every row all of them and filled the gaps with null.
    """
    import datasets

    problems = [f"no split {part}" for part in SPLITS if part not in loaded]
    problems += [
        f"{part}: no column {column}"
        for part in SPLITS
        for column in ("image", "text")
        if part in loaded and column not in loaded[part].column_names
    ]
    if problems:
        raise DataError(f"brand=hub:{name} is not a brand set:", problems)

    def write_splits_and_brand_file(partial: Path) -> None:
        for part in SPLITS:
            rows = []
            (partial / part).mkdir()
            for i, row in enumerate(loaded[part].cast_column("image", datasets.Image(decode=False))):
                image = row["image"]
                file = f"{i:05d}{Path(image['path'] or 'x.png').suffix}"
                files.write_atomically(partial / part / file, image["bytes"] or Path(image["path"]).read_bytes())
                traits = {k: v for k, v in (row.get("traits") or {}).items() if v is not None}
                more = {FURTHER: found} if (found := row.get(FURTHER)) else {}
                rows.append({"file_name": file, "text": row["text"], "traits": traits} | more)
            files.write_jsonl(partial / part / "metadata.jsonl", rows)
        word = name.rsplit("/", 1)[-1]
        files.write_atomically(
            partial / "brand.yaml", yaml.safe_dump({"name": word, "trigger": f"{word} style", "source": name})
        )

    files.write_folder_atomically(target, write_splits_and_brand_file)


def read_brand_set(folder: Path) -> BrandSet:
    """Read a brand set: brand.yaml, captions, and the sha256 of each picture; pictures are not decoded.

    Raises DataError if rows and files do not fit.
    """
    problems: list[str] = []
    brand, splits = read_brand_file(folder), {}
    for part in SPLITS:
        splits[part] = []
        for name, (row, path) in sorted(valid_rows_and_picture_files(folder, part, problems).items()):
            item = BrandPicture(name, row["text"], row["traits"], path, files.sha256_of_file(path), row[FURTHER])
            splits[part].append(item)
    raise_if_problems(folder, CheckReport(problems))
    return BrandSet(folder=folder, brand=brand, splits=splits)


def read_brand_file(folder: Path) -> Brand:
    """Read and check brand.yaml of the brand set in `folder`. Raises DataError listing every problem."""
    path = folder / "brand.yaml"
    if not path.exists():
        raise DataError(
            f"{files.display_path(folder)} is not a brand set: brand.yaml is missing",
            next_step="stylegate brand name=acme images=DIR makes a brand set from a folder of pictures.",
        )
    data = files.read_yaml(path, "brand", words=True)
    try:
        return Brand(**data)
    except ValidationError as error:
        keys = sorted(Brand.model_fields)
        raise DataError(
            f"{files.display_path(path)}:", pydantic_errors_of_brand_in_words(error), f"keys are {keys}."
        ) from None


def pydantic_errors_of_brand_in_words(error: ValidationError) -> list[str]:
    """The problems that pydantic found in a brand.yaml, each as the text `key: what is wrong`."""
    words = {
        "extra_forbidden": "unknown key",
        "missing": "missing",
        "string_type": "must be text",
        "string_too_short": "missing",
    }
    return [
        f"{'.'.join(map(str, each['loc']))}: {words.get(each['type'], each['msg'].removeprefix('Value error, '))}"
        for each in error.errors()
    ]


def raise_if_problems(folder: Path, findings: CheckReport) -> None:
    """Raise DataError listing the problems that were found; do nothing if there are none."""
    if findings.problems:
        count = counted(len(findings.problems), "problem")
        raise DataError(
            f"{files.display_path(folder)} has {count}:", findings.problems, "mend them and run this again."
        )


# Checking.


def valid_rows_and_picture_files(folder: Path, part: str, problems: list[str]) -> dict[str, tuple[dict, Path]]:
    """The valid rows of a split's metadata.jsonl and their files, by name ("train/0000.png"); problems go to
    `problems`.
    """
    table = folder / part / "metadata.jsonl"
    if not table.is_file():
        problems.append(f"{part}/metadata.jsonl is missing")
        return {}
    found: dict[str, tuple[dict, Path]] = {}
    rows = read_rows_that_have_file_name(table, problems)
    for row in rows:
        file = row["file_name"]
        name, path = f"{part}/{file}", folder / part / file
        try:
            inside, there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
        except (OSError, ValueError) as error:
            problems.append(f"{name!r}: cannot be a file ({error})")
            continue
        if not inside:
            problems.append(f"{part}/metadata.jsonl: {file} lies outside the brand set")
        elif not there:
            problems.append(f"{name}: listed in metadata.jsonl, but there is no such file")
        elif name in found:
            problems.append(f"{name}: listed twice")
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            problems.append(f"{name}: its caption is empty")
        elif inside and there:
            try:
                read_values = {
                    "traits": traits_without_nulls(row.get("traits")),
                    FURTHER: parse_cell_of_further_captions(row.get(FURTHER)),
                }
                found[name] = (row | read_values, path)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if not rows:
        problems.append(f"{part}/metadata.jsonl lists no pictures")
    return found


def read_rows_that_have_file_name(table: Path, problems: list[str]) -> list[dict]:
    """The objects of a JSON Lines table that have a file_name; a problem is added to `problems` for every other
    line.
    """
    where, found = f"{table.parent.name}/{table.name}", tables.read_table(table)
    problems += [
        f"{where}, {problem}" if found.rows or found.columns else f"{where}: {problem}" for problem in found.problems
    ]
    named = []
    for row in found.rows:
        if isinstance(row.cells.get("file_name"), str):
            named.append(row.cells)
        else:
            problems.append(f"{where}, line {row.line}: not a JSON object with file_name, in UTF-8")
    return named


def traits_without_nulls(value: Any) -> dict[str, str]:
    """Traits by name. Those that are null or empty are left out: `datasets` fills gaps with null, and brand sets with
    an empty text.

    Raises ValueError if the value is no mapping of names to text.
    """
    if value in (None, "", {}):
        return {}
    known = {k: v for k, v in value.items() if v not in (None, "")} if isinstance(value, dict) else None
    if known is None or not all(isinstance(v, str) for v in known.values()):
        raise ValueError('traits must map names to text, such as {"species": "cat"}')
    return known


def parse_cell_of_further_captions(value: Any) -> tuple[str, ...]:
    """The captions after the first, from a cell of a table, one on each line. Raises ValueError if it is no text."""
    if not isinstance(value, str | None):
        raise ValueError(f"{FURTHER} must be text with a caption on each line")
    return tuple(line.strip() for line in (value or "").splitlines() if line.strip())


def decoded_image(item: BrandPicture, brand: Brand) -> Image.Image:
    """The picture as training and scoring see it: upright sRGB on the brand's background. Raises PictureError."""
    return pictures.decode_picture(item.unchanged_file_bytes(), brand.background).image


def decoded_image_as_rgba(item: BrandPicture, brand: Brand) -> Image.Image:
    """The picture as a base that draws alpha learns it: RGBA, and opaque where the brand does not keep alpha.

    Raises PictureError.
    """
    return pictures.decode_picture(item.unchanged_file_bytes(), brand.background_for_drawn_pictures()).image.convert(
        "RGBA"
    )
