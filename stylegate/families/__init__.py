"""Model families by name. A new one is a module beside sd.py and a row here."""

from typing import cast

from stylegate.families import flux, flux2, krea2, qwenimage, qwenimage21, sd, sd3, sdxl, zimage
from stylegate.families.base import Conditions, Family, LoadedBaseModel, NoiseSchedule, WeightlessModel

FAMILIES: dict[str, Family] = {
    "sd": cast(Family, sd),
    "sdxl": cast(Family, sdxl),
    "flux2": cast(Family, flux2),
    "zimage": cast(Family, zimage),
    "flux": cast(Family, flux),
    "qwenimage": cast(Family, qwenimage),
    "sd3": cast(Family, sd3),
    "krea2": cast(Family, krea2),
    "qwenimage21": cast(Family, qwenimage21),
}

__all__ = ["FAMILIES", "Conditions", "Family", "LoadedBaseModel", "NoiseSchedule", "WeightlessModel"]
