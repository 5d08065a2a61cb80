"""How many pictures the splits validation/ and test/ of a brand set need, and what fewer cannot do."""

from stylegate.words import counted

FEWEST_REFERENCES = 8  # with fewer the gate does not judge style
FOR_LINE = 16  # references that draw a usable line; 30 draw a sharp one
FOR_CHECKPOINTS = 8  # pictures that choose a checkpoint without help of train/


def remarks_on_splits(validation: int, test: int) -> list[str]:
    """What splits of these sizes (pictures) cannot do, a sentence each; an empty list if both are large enough."""
    remarks = []
    if test < FEWEST_REFERENCES:
        what = f"the gate judges style from {FEWEST_REFERENCES} references up"
        remarks.append(f"{counted(test, 'picture')} in test/; {what}")
    elif test < FOR_LINE:
        remarks.append(f"{test} pictures in test/ draw a rough line; {FOR_LINE} draw a usable one")
    if validation < FOR_CHECKPOINTS:
        what = f"fewer than {FOR_CHECKPOINTS}: train/ helps to choose the checkpoint"
        remarks.append(f"{counted(validation, 'picture')} in validation/, {what}")
    return remarks
