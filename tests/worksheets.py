"""Worksheets filled in as a person would fill them in."""

import csv
from collections.abc import Callable
from pathlib import Path

Row = dict[str, str]


def worksheet_rows(sheet: Path) -> list[Row]:
    """The rows of a worksheet, as cells by column."""
    with sheet.open(newline="") as file:
        return list(csv.DictReader(file))


def fill_in(sheet: Path, answer: Callable[[int, Row], Row], count: int | None = None) -> Path:
    """Write filled.csv beside a worksheet: its rows, of which the first `count` (all by default) are answered.

    `answer` is given the number of a row and its cells; the cells that it returns replace those. Returns the path.
    """
    rows = worksheet_rows(sheet)
    for i, row in enumerate(rows[:count]):
        row |= answer(i, row)
    filled = sheet.with_name("filled.csv")
    with filled.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return filled
