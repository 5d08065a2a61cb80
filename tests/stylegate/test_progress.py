"""Progress of long work, on a terminal and in a log."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from stylegate import progress


def outer_and_inner() -> None:
    with progress.progress_bar("train", 20) as tick:
        tick(10, "loss 0.5")
        with progress.progress_bar("evaluate", 2) as inside:
            inside(1, "samples/step-000010")
            for shown in progress.on_screen:
                shown.refresh()  # what a terminal is sent ten times a second
            inside(1)
        tick(10)


def test_a_bar_inside_another_one_is_a_line_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    terminal: Callable[..., Console] = lambda **_: Console(file=shown, force_terminal=True, width=120)  # noqa: E731
    monkeypatch.setattr(progress, "Console", terminal)
    outer_and_inner()
    text = shown.getvalue()
    assert "evaluate" in text and "samples/step-000010" in text and "20/20" in text
    assert "evaluate" not in text.splitlines()[-1] and not progress.on_screen


def test_in_a_log_each_ends_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    outer_and_inner()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("evaluate   2/2") and second.startswith("train      20/20")
