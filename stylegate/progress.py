"""Progress of long work: a bar on a terminal, a plain line every ten seconds in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY_S = 10.0
on_screen: list[Progress] = []  # what is shown on the terminal now: a bar inside another one is one more line of it


class AdvanceProgress(Protocol):
    """A function that advances a progress bar by `steps`, and shows `note` beside it."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def progress_bar(title: str, total: int, start: int = 0, visible: bool = True) -> Iterator[AdvanceProgress]:
    """A context that shows how many of `total` steps are done. It yields tick(steps, note), which advances that and
    shows a note (loss, say) beside the rate.

    On a terminal it is a bar on stderr, elsewhere the lines of `log_progress_lines`; nothing is shown if `visible` is
    False.
    """
    console = Console(stderr=True)
    if not visible:
        yield lambda steps=1, note="": None
        return
    if not console.is_terminal:
        with log_progress_lines(title, total, start) as advance_bar_and_show_note:
            yield advance_bar_and_show_note
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>6.1f}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with nullcontext(on_screen[0]) if on_screen else Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=start, rate=0.0, note="")
        began, done = time.monotonic(), 0

        def advance_bar_and_show_note(steps: int = 1, note: str = "") -> None:
            nonlocal done
            done += steps
            rate = done / max(time.monotonic() - began, 1e-3)
            progress.update(task, advance=steps, rate=rate, note=note)

        inside = bool(on_screen)
        on_screen.append(progress)
        try:
            yield advance_bar_and_show_note
        finally:
            on_screen.pop()
            if inside:
                progress.remove_task(task)


@contextmanager
def log_progress_lines(title: str, total: int, start: int) -> Iterator[AdvanceProgress]:
    """The same context as `progress_bar`, for a log: it prints a line to stdout at most every LOG_EVERY_S seconds, and
    one at the end.
    """
    began = spoken = time.monotonic()
    done = start

    def progress_line(note: str) -> str:
        rate = (done - start) / max(time.monotonic() - began, 1e-3)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        return f"{title:<10} {done}/{total}  {rate:.1f}/s{left}  {note}".rstrip()

    last = ""

    def count_steps_and_print_due_line(steps: int = 1, note: str = "") -> None:
        nonlocal done, spoken, last
        done, last = done + steps, note or last
        if time.monotonic() - spoken >= LOG_EVERY_S and done < total:
            spoken = time.monotonic()
            print(progress_line(last), flush=True)

    yield count_steps_and_print_due_line
    if total > start:
        print(progress_line(last), flush=True)
