"""What a batch cost: seconds of compute by stage, and money where an hour has a price."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import Field

from stylegate import files
from stylegate.records import Record

COST = "cost.json"  # seconds by stage; `stylegate run` writes it


def read_compute_seconds_by_stage(folder: Path) -> dict[str, float]:
    """The seconds of compute that a batch has cost, by stage, from its cost.json; empty if there is no such file."""
    path = folder / COST
    found = files.read_json(path, "the batch's cost") if path.exists() else {}
    return {stage: float(seconds) for stage, seconds in found.items() if isinstance(seconds, int | float)}


class PackageCostRecord(Record):
    """proof/cost.json of a package: what its pictures cost, as the maker of the package counted it."""

    accepted: int
    """The pictures of the package."""
    seconds_per_accepted: dict[str, float]
    """By stage: seconds of compute of the whole batch over the number of pictures."""
    stopped_early: int = 0
    """Attempts that ended early, whose seconds are counted too; left out where there are none."""
    price_per_hour: float | None = None
    """What an hour of compute costs, in money; left out where nobody said it."""
    money_per_accepted: dict[str, float] = Field(default_factory=dict)
    """The same by stage in money; left out without a price."""


def cost_per_accepted(
    seconds: Mapping[str, float], accepted: int, price: float | None, stopped_early: int = 0
) -> PackageCostRecord:
    """What one accepted picture cost, by stage: the `seconds` of the whole batch over `accepted`, which is 1 or more;
    in money too where an hour has a `price`.
    """
    each = {stage: round(spent / accepted, 4) for stage, spent in seconds.items()}
    money = {} if price is None else {stage: round(price * spent / 3600, 8) for stage, spent in each.items()}
    return PackageCostRecord(
        accepted=accepted,
        seconds_per_accepted=each,
        stopped_early=stopped_early,
        price_per_hour=price,
        money_per_accepted=money,
    )


def cost_in_words(seconds: Mapping[str, float], accepted: int, price: float | None) -> str:
    """What an accepted picture cost: seconds, those of each stage, and money if an hour has a price; "" if unknown."""
    if not (total := sum(seconds.values())):
        return ""
    each, what = (total / accepted, "per accepted picture") if accepted else (total, "and no accepted picture")
    stages = [f"{stage} {spent / (accepted or 1):.2g}" for stage, spent in seconds.items() if spent]
    text = f"{each:.3g} s of compute {what}" + (f" ({', '.join(stages)})" if len(stages) > 1 else "")
    if price is None:
        return text
    money = np.format_float_positional(price * each / 3600, precision=2, fractional=False, trim="-")
    return f"{text}, {money} in money at {price:g} an hour"
