"""Sheets of pictures for people: contact sheets and tables of pictures."""

import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

INK, PAPER, FAINT = "#1c1b1a", "#faf9f7", "#8a8680"


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: int, cell: int = 96) -> Image.Image:
    """Draw a contact sheet: for each entry of `rows` its heading, then its pictures in lines of `columns`.

    Cells are squares of `cell` pixels a side.
    """
    gap, head = 6, 26
    heights = [head + math.ceil(len(images) / columns) * (cell + gap) + gap for _, images in rows]
    page = Image.new("RGB", (columns * (cell + gap) + gap, sum(heights) + gap), PAPER)
    draw, top = ImageDraw.Draw(page), 0
    for (title, images), height in zip(rows, heights, strict=True):
        draw.text((gap, top + 6), title, fill=INK, font=font(14))
        for i, image in enumerate(images):
            x, y = gap + (i % columns) * (cell + gap), top + head + (i // columns) * (cell + gap)
            page.paste(fit_into_cell(image, cell), (x, y))
        top += height
    return page


def draw_picture_grid_with_captions(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], cell: int = 128
) -> Image.Image:
    """Draw a grid with headings over the columns and a caption under each row of pictures."""
    gap, head, foot = 6, 26, 22
    width = len(columns) * (cell + gap) + gap
    page = Image.new("RGB", (width, head + len(rows) * (cell + foot + gap)), PAPER)
    draw = ImageDraw.Draw(page)
    for i, title in enumerate(columns):
        draw.text((gap + i * (cell + gap), 6), title, fill=INK, font=font(14))
    for r, (caption, images) in enumerate(rows):
        y = head + r * (cell + foot + gap)
        for i, image in enumerate(images):
            page.paste(fit_into_cell(image, cell), (gap + i * (cell + gap), y))
        draw.text(
            (gap, y + cell + 3), truncate_text_to_pixel_width(caption, width - 2 * gap), fill=FAINT, font=font(12)
        )
    return page


def truncate_text_to_pixel_width(text: str, width: int) -> str:
    """The caption, cut until it is at most `width` pixels wide; what was cut ends in …, "" if nothing fits."""
    while text and font(12).getlength(text) > width:
        kept = text[:-2].rstrip(" …")
        text = f"{kept}…" if kept else ""
    return text


def fit_into_cell(image: Image.Image, cell: int) -> Image.Image:
    """Fit a picture into a square of `cell` pixels; small ones grow by whole factors and are not smoothed."""
    whole = cell // max(image.size)
    if whole >= 1:
        image = image.resize((image.width * whole, image.height * whole), Image.Resampling.NEAREST)
    return ImageOps.pad(image, (cell, cell), Image.Resampling.LANCZOS, color=PAPER)
