"""Asking for labels in a terminal: one picture after the other, each answer stored at once."""

import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from getpass import getuser
from pathlib import Path
from typing import NamedTuple

from eval.lot.lot import Lot
from eval.policy.model import Policy
from eval.promise import labels
from eval.promise.labels import Label, LabelName, Purpose, label_with_policy
from stylegate import files

QUESTION = "a accept, r reject, u unsure (counts as a reject), q stop: "
CONFIRM = "Enter for the next picture, b to answer again, q stop: "
ANSWERS: dict[str, LabelName] = {"a": "accept", "r": "reject", "u": "unsure"}


class LabelAndStopFlag(NamedTuple):
    """What came of asking a person about one picture."""

    label: Label | None  # None: the person stopped before an answer
    stop: bool  # the person wants to stop


def show_picture_and_ask_label(
    lot: Lot, purpose: Purpose, sha256: str, progress: str, policy: Policy, under: str = ""
) -> LabelAndStopFlag:
    """Show one picture, ask for a label and store it; it may be taken back until the next picture is shown.

    `progress` is printed before the picture's path and prompt. Later an answer stays: whoever may change answers after
    having seen more could choose when to stop.
    """
    name = next(name for name, content in lot.sha256.items() if content == sha256)
    show_picture(lot, name, progress)
    return ask_label_and_store(lot.out, purpose, sha256, policy, under)


def show_picture(lot: Lot, name: str, progress: str) -> None:
    """Print `progress`, then path and prompt of the picture with this name, and open it where a browser can be
    shown.
    """
    slot = (lot.slots or {}).get(name)
    print_and_open_picture(dict(lot.files)[name], slot.prompt if slot else "", progress)


def print_and_open_picture(path: Path, prompt: str, progress: str) -> None:
    """Print `progress`, then the picture's path and its prompt, which may be empty; open the picture in a browser where
    one can be shown.
    """
    print(f"{progress}\n  picture: {files.display_path(path)}")
    if prompt:
        print(f"  prompt:  {prompt}")
    if can_open_browser():
        webbrowser.open(path.resolve().as_uri())


def can_open_browser() -> bool:
    """Whether a browser can be shown on this machine: not in CI, and on Linux only with a display. Without one, a
    browser for terminals might take the terminal, in which we ask.
    """
    if os.environ.get("CI"):
        return False
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) or sys.platform in ("darwin", "win32")


def ask_label_and_store(
    out: Path,
    purpose: Purpose,
    sha256: str,
    policy: Policy,
    under: str = "",
    correction: Callable[[], dict[str, str]] = dict,
    asked_for: str = "",
) -> LabelAndStopFlag:
    """Ask in the terminal whether the picture `sha256`, which is shown already, is accepted, rejected or unsure, and
    store the answer in labels.sqlite of the folder `out` under the user's login name. The person can take it back
    before this returns. Returns the label (None if the person stopped first) and whether the person wants to stop.
    `correction` is called after a reject and returns what the picture shows instead (trait -> value). `asked_for` says
    why the picture is shown: "known" for a known reject, else empty.
    """
    while True:
        answer = read_answer(f"  {QUESTION}", (*ANSWERS, "q"))
        if answer == "q":
            return LabelAndStopFlag(None, True)
        shown = correction() if answer == "r" else {}
        said = Label(sha256=sha256, verdict=ANSWERS[answer], who=getuser(), why="")
        new = label_with_policy(said, policy, under=under, shown_traits=shown, asked_for=asked_for)
        (label,) = labels.append_labels(out, purpose, [new])
        confirmed = read_answer(f"  {label.verdict}. {CONFIRM}", ("", "b", "q"))
        if confirmed != "b":
            return LabelAndStopFlag(label, confirmed == "q")
        labels.append_undo(out, purpose, label.id, label.who)


def read_answer(question: str, choices: Sequence[str]) -> str:
    """The first letter of what was typed, one of `choices`; asks again for any other. The end of input means q."""
    while True:
        try:
            answer = input(question).strip().lower()[:1]
        except EOFError:
            return "q"
        if answer in choices:
            return answer
