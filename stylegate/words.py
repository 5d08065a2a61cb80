"""Numbers with their nouns and units, in sentences for people; and names as people tell them apart."""

import math
import unicodedata


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun: "1 picture", "3 pictures".

    `one` is what follows a 1, and `many` what follows any other number; without it, `one` with an "s" at its end.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def duration_in_words(seconds: float) -> str:
    """Seconds in the unit that reads best: "40 s", "4 min", "2.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rounded_up_to_a_tenth(value: float) -> float:
    """The value rounded up to one decimal; what a float holds too much (0.29 x 100) is no reason to round up."""
    return math.ceil(10 * value - 1e-6) / 10


def percentage_rounded_up(share: float) -> str:
    """A share, 0 to 1, for a sentence that says "at most": rounded up to a tenth of a percent."""
    return f"{rounded_up_to_a_tenth(100 * share):.1f}%"


def confidence_percent_rounded_down(delta: float) -> float:
    """The confidence, in percent, with which something holds but for the probability `delta`: rounded down."""
    return round(100 - rounded_up_to_a_tenth(100 * delta), 1)


def name_without_case_and_accents(name: str) -> str:
    """The name without what people overlook: case, width of letters, combining marks, the number of spaces, and
    underscores that stand for spaces.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold().replace("_", " "))
    return " ".join("".join(letter for letter in plain if not unicodedata.combining(letter)).split())
