"""The words of a command that name a lot again, and how it is judged."""

import shlex

from eval.lot.lot import Lot
from stylegate.config import Config, config_as_dict

WORDS = ("brand", "images", "out", "references", "foreign", "encoder", "policy", "calibration")


def arguments_naming_lot(config: Config, lot: Lot) -> str:
    """The arguments that name the lot and how it is judged, as one text for a shell, such as "brand=acme
    policy=strict".

    What has its default is left out.
    """
    given, usual = config_as_dict(config), config_as_dict(Config())
    changed = {name: given[name] for name in WORDS if given[name] != usual[name]}
    if lot.record:
        changed = {"batch": lot.out.name} | {n: v for n, v in changed.items() if n not in ("brand", "images")}
    if given["score"] != usual["score"]:
        scored = {f"score.{n}": v for n, v in given["score"].items() if v != usual["score"][n] and n != "batch_size"}
        changed |= scored
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in changed.items())
