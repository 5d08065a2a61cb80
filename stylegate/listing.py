"""What lies in a folder of pictures: every file is judged, read beside the pictures, or hidden. None is passed over.

A file is a picture unless it is known to be something else, so that a picture under an unknown name, and a broken one,
are decoded and named, never left out.
"""

import os
from pathlib import Path
from typing import NamedTuple

# Names of pictures. What such a file holds decides whether it can be read (stylegate/pictures.py).
SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
SUFFIXES |= {".jp2", ".j2k", ".jpx", ".psd", ".qoi", ".ppm", ".pgm", ".pbm", ".ico", ".heic", ".heif", ".jxl", ".svg"}
CAPTIONS = {".txt", ".caption"}
TABLES = {".csv", ".tsv", ".jsonl"}
# Files that stand beside pictures and are none: words, tables and the caches of trainers.
BESIDE = CAPTIONS | TABLES | {".json", ".yaml", ".yml", ".toml", ".md", ".html", ".xml", ".xmp", ".log", ".ini", ".py"}
BESIDE |= {".parquet", ".arrow", ".npz", ".npy", ".safetensors"}
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir"}  # of Windows, macOS, Synology
PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"8BPS", b"qoif")
START_BYTES = 4096  # enough to tell text from anything else
MASK_ENDS = ("-masklabel", "_mask", "-mask", ".mask")  # as OneTrainer, kohya's tools and people name them
MASK_FOLDERS = {"mask", "masks"}


class FolderListing(NamedTuple):
    """The files below a folder, each in one list; the lists are sorted."""

    pictures: list[Path]  # pictures, and whatever is not known to be something else
    beside: list[Path]  # captions, tables and other text, caches of trainers
    hidden: list[Path]  # hidden files, those in hidden folders, and those that operating systems leave behind


def list_folder(folder: Path) -> FolderListing:
    """The files below `folder`, at any depth, as pictures, files beside pictures, and hidden ones.

    A link to a folder is not followed: it is listed among the pictures, where decoding fails with an error. What is not
    there, or is a file, has no files below it. Raises OSError for a folder that cannot be read: its files would be
    passed over.
    """

    found = FolderListing([], [], [])
    for place, folders, names in os.walk(folder, onerror=raise_all_errors_but_not_found):
        links = [name for name in folders if Path(place, name).is_symlink()]
        in_hidden = any(is_hidden(part) for part in Path(place).relative_to(folder).parts)
        for name in (*names, *links):
            path = Path(f"{place}/{name}")  # twice as fast as below / name
            if in_hidden or is_hidden(name):
                found.hidden.append(path)
            elif name not in links and name[name.rfind(".") :].lower() in SUFFIXES:
                found.pictures.append(path)  # its name says so: not opened here
            elif is_text_or_trainer_cache(path):
                found.beside.append(path)
            else:
                found.pictures.append(path)
    return FolderListing(*(sorted(paths, key=lambda path: path.parts) for paths in found))


def raise_all_errors_but_not_found(error: OSError) -> None:
    """For os.walk's onerror: without it a folder that cannot be read counts as empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def find_pictures(folder: Path) -> list[Path]:
    """The files below `folder` that are pictures or not known to be something else, sorted."""
    return list_folder(folder).pictures


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder is that of a hidden one, or of what operating systems leave behind."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM


def is_text_or_trainer_cache(path: Path) -> bool:
    """Whether a file stands beside pictures and is none: its name is that of text or of a trainer's cache, or its first
    bytes are text.

    A file that begins as a picture does is no sidecar, whatever its name.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return suffix in BESIDE
    if start.startswith(PICTURE_STARTS) or start[4:8] == b"ftyp":  # "ftyp": AVIF, HEIC, and films
        return False
    return suffix in BESIDE or is_utf8_text(start)


def is_utf8_text(start: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 text, of which the last character may be cut. Empty files are no
    text.
    """
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(start) - error.start > 3 or error.reason != "unexpected end of data":
            return False
    return bool(start) and not set(start) & {*range(9), *range(14, 27), *range(28, 32)}


def mask_files(pictures: list[Path]) -> list[Path]:
    """Those of `pictures` that are masks of others: cat_mask.png beside cat.png, or masks/cat.png."""
    beside = {(path.parent, path.stem) for path in pictures}
    stems = {path.stem for path in pictures if path.parent.name.lower() not in MASK_FOLDERS}

    def is_mask(path: Path) -> bool:
        ends = [end for end in MASK_ENDS if path.stem.lower().endswith(end)]
        named = any((path.parent, path.stem[: -len(end)]) in beside for end in ends)
        return named or (path.parent.name.lower() in MASK_FOLDERS and path.stem in stems)

    return [path for path in pictures if is_mask(path)]
