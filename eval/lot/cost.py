"""What a batch cost: seconds of compute by stage, and money where an hour has a price."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stylegate import files

COST = "cost.json"  # seconds by stage; `stylegate run` writes it


def cost_of(folder: Path) -> dict[str, float]:
    """The seconds of compute that a batch has cost, by stage, from its cost.json; empty if there is no such file."""
    path = folder / COST
    found = files.read_json(path, "the batch's cost") if path.exists() else {}
    return {stage: float(seconds) for stage, seconds in found.items() if isinstance(seconds, int | float)}


def cost_in_words(seconds: Mapping[str, float], accepted: int, price: float | None) -> str:
    """What an accepted picture cost, in seconds and, with the price of an hour, in money; "" if nothing is known."""
    if not (total := sum(seconds.values())):
        return ""
    each, what = (total / accepted, "per accepted picture") if accepted else (total, "and no accepted picture")
    text = f"{each:.3g} s of compute {what}"
    if price is None:
        return text
    money = np.format_float_positional(price * each / 3600, precision=2, fractional=False, trim="-")
    return f"{text}, {money} in money at {price:g} an hour"
