"""Model families by name. A new one is a module beside sd.py and a row here."""

from typing import cast

from stylegate.families import sd
from stylegate.families.base import Family, Models, Schedule, Sketch

FAMILIES: dict[str, Family] = {"sd": cast(Family, sd)}

__all__ = ["FAMILIES", "Family", "Models", "Schedule", "Sketch"]
