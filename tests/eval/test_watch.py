"""A folder is judged while it is filled: complete pictures only, as the gate judges them, until it is stopped."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from eval import watch
from eval.judging.verdicts import read_verdicts
from eval.measuring import encoder
from stylegate import files

POLICY = "version: 1\nmax_failed_share: 0\nchecks:\n  contrast: {reject_below: 6}\n"


class ScriptedStop:
    """Stands for the event that Ctrl-C sets. Each wait lasts a second and does the next of `acts`; after the last one
    the watch is over.
    """

    def __init__(self, *acts: Callable[[], Any]) -> None:
        self.acts, self.now = list(acts), 0.0

    def is_set(self) -> bool:
        return not self.acts

    def wait(self, timeout: float) -> None:
        self.now += 1
        self.acts.pop(0)()


@pytest.fixture
def watch_while(
    run_exactly: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """watch_while(words, act, ...): the gate watches while the acts happen; a file is complete after one second."""

    def call(words: list[str], *acts: Callable[[], Any]) -> tuple[int, str]:
        script = ScriptedStop(*acts)
        monkeypatch.setattr(watch, "stop_on_signals", lambda: nullcontext(script))
        monkeypatch.setattr(watch, "SETTLED_AFTER_S", 1.0)
        monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: script.now))
        return run_exactly("gate", *words, "watch=true")

    return call


def test_complete_pictures_are_judged_as_they_come(
    watch_while: Callable[..., tuple[int, str]],
    run_exactly: Any,
    words: Any,
    judged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, load = [], encoder.load_one_encoder
    monkeypatch.setattr(encoder, "load_one_encoder", lambda *of: (loaded.append(of), load(*of))[1])
    known, new, table = words(POLICY), judged / "new.png", tmp_path / "out" / "verdicts.jsonl"
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    black = (tmp_path / "black.png").read_bytes()
    counts: list[int] = []
    lock = files.exclusive_lock((tmp_path / "out").resolve())

    def write(content: bytes) -> Callable[[], Any]:
        return lambda: (counts.append(len(read_verdicts(table))), new.write_bytes(content))

    code, text = watch_while(
        known,
        lambda: None,  # 32 pictures are complete now, and judged
        write(black[:40]),
        write(black),
        lambda: lock.__enter__(),  # complete, but somebody else is at work on the verdicts
        lambda: lock.__exit__(None, None, None),
        lambda: counts.append(len(read_verdicts(table))),
    )
    assert counts == [32, 32, 33], "a half-written picture is not judged"
    assert len(loaded) == 1, "both judgements are made with the encoder that was loaded for the first"
    said = [line for line in text.splitlines() if line.startswith(("accept: ", "reject: "))]
    assert code == 10 and len(said) == 33 and said[-1].startswith("reject: new.png: contrast"), text
    assert "32 accept" in text and "gate: 33 in =" in text
    by_watch = table.read_bytes()
    assert run_exactly("gate", *known)[0] == 10 and table.read_bytes() == by_watch
    assert {path.name for path in judged.iterdir()} == {verdict.file for verdict in read_verdicts(table)}


def test_the_last_complete_judgement_stands_while_a_picture_is_written_again(
    watch_while: Callable[..., tuple[int, str]], words: Any, judged: Path, tmp_path: Path
) -> None:
    known, new = words(POLICY), judged / "new.png"
    content = next(judged.glob("*.png")).read_bytes()
    code, text = watch_while(
        known,
        lambda: None,
        lambda: new.write_bytes(content[:100]),
        lambda: None,  # the writer stands still: judged as it is
        lambda: new.write_bytes(content),
    )
    record = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert "error: new.png" in text and code == 10, text
    assert "note: 1 picture came too late to be judged: new.png" in text
    assert record["counts"]["in"] == 33 and "accept: new.png" not in text, "not complete again yet"


def test_what_cannot_be_watched_is_refused(
    watch_while: Callable[..., tuple[int, str]], words: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    found = watch_while([f"images={tmp_path / 'empty'}", f"out={tmp_path / 'v'}"], lambda: None, lambda: None)
    assert found[0] == 2 and "no picture was judged" in found[1] and not (tmp_path / "v").exists()
    for bad in (["out=v"], [f"images={tmp_path / 'empty'}"], [f"images={tmp_path / 'none'}", "out=v"]):
        code, text = watch_while(bad)
        assert code == 2 and ("needs images=FOLDER and out=FOLDER" in text or "is not a folder" in text), text


def test_a_lot_that_another_command_uses_all_the_time_is_said(
    watch_while: Callable[..., tuple[int, str]], judged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with files.exclusive_lock(out):
        code, text = watch_while([f"images={judged}", f"out={out}"], *[lambda: None] * 3)
    assert code == 2 and "another stylegate is at work" in text and "no picture" not in text, text


def test_the_first_signal_ends_after_the_judgement_and_the_second_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with watch.stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            stop.wait(1)
    assert signal.getsignal(signal.SIGINT) is before
