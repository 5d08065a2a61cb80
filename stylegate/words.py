"""Numbers with their nouns, in sentences for people."""


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun: "1 picture", "3 pictures".

    `one` is what follows a 1, and `many` what follows any other number; without it, `one` with an "s" at its end.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
