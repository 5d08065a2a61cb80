"""Model families by name. A new one is a module beside sd.py and a row here."""

from typing import cast

from stylegate.families import flux2, sd, sdxl, zimage
from stylegate.families.base import Conditions, Family, Models, Schedule, Sketch

FAMILIES: dict[str, Family] = {
    "sd": cast(Family, sd),
    "sdxl": cast(Family, sdxl),
    "flux2": cast(Family, flux2),
    "zimage": cast(Family, zimage),
}

__all__ = ["FAMILIES", "Conditions", "Family", "Models", "Schedule", "Sketch"]
