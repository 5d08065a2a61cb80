"""Judge a folder while something fills it: ComfyUI, a renderer, a person.

    stylegate gate images=ComfyUI/output references=./brand out=verdicts watch=true

A picture is judged once its file has not changed for SETTLED_AFTER_S seconds; one that changes later is judged again.
Each judgement is that of all complete pictures together, exactly as `stylegate gate` without watch=true gives it, and
each of its files is replaced whole. Nothing in the folder is moved or written. Ctrl-C (or SIGTERM) ends the watch after
the judgement that is under way, with the exit code of the last one.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from eval.gate import exit_code_unless_observed, judge_and_write, print_gate_summary_and_next_step
from eval.judging.judged import JudgedLot
from eval.lot.lot import relative_name
from eval.measuring.encoder import keeping_encoder_loaded
from eval.report.mirror import mirror_to_wandb
from eval.report.summaries import check_and_numbers, escaped_on_one_line
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError, InUseError, keeping_exit_code_of_verdict
from stylegate.listing import list_folder
from stylegate.words import counted

SETTLED_AFTER_S = 2.0  # a file that has not changed for so long is taken for complete
LOOK_EVERY_S = 0.5
FileState = tuple[int, int]  # size in bytes, time of the last change in nanoseconds


class CompletePictureFinder:
    """The pictures of a folder that are complete, as far as can be told from outside: they no longer change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_seen: dict[Path, tuple[FileState, float]] = {}  # the state of each file, and since when it is so

    def look_for_complete_files(self) -> dict[Path, FileState]:
        """Look at every picture of the folder now. Returns those that have not changed for SETTLED_AFTER_S seconds,
        with the state of their files.
        """
        now, before, self.first_seen = time.monotonic(), self.first_seen, {}
        for path in list_folder(self.folder).pictures:
            state = size_and_change_time(path)
            known = before.get(path)
            self.first_seen[path] = known if known and known[0] == state else (state, now)
        return {path: state for path, (state, since) in self.first_seen.items() if now - since >= SETTLED_AFTER_S}


def size_and_change_time(path: Path) -> FileState:
    """Size in bytes and time of the last change in nanoseconds of a file; (-1, 0) for one that is gone or cannot be
    looked at.
    """
    try:
        found = path.stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """A context inside which Ctrl-C and SIGTERM only set the event that it yields; a second signal raises
    KeyboardInterrupt at once.
    """
    stop = Event()

    def ask_to_stop(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(config: Config) -> int:
    """Judge the folder again and again as it fills, until Ctrl-C. Returns the exit code of the last judgement.

    Raises ConfigError where images= or out= is missing, and DataError if no picture was judged.
    """
    if not config.images or not config.out or config.batch or config.decisions:
        what = "watch=true needs images=FOLDER and out=FOLDER, and reads neither batch= nor decisions="
        raise ConfigError(what, next_step="give both; decisions= is read by stylegate gate in between, or after.")
    images = Path(config.images).expanduser().resolve()
    if not images.is_dir():
        raise DataError(f"images={config.images} is not a folder", next_step="name the folder that will be filled.")
    print(f"watching {files.display_path(images)}; Ctrl-C ends it", flush=True)
    with stop_on_signals() as stop, keeping_encoder_loaded():
        judged = judge_until_stopped(config, images, stop)
    if judged is None:
        raise DataError(f"images={config.images}: no picture was judged", next_step="name the folder that is filled.")
    print_gate_summary_and_next_step(judged)
    with keeping_exit_code_of_verdict(judged.outcome.exit_code):
        mirror_to_wandb(config, judged)
    print(files.display_path(judged.lot.out))
    return exit_code_unless_observed(judged)


def judge_until_stopped(config: Config, images: Path, stop: Event) -> JudgedLot | None:
    """Judge all complete pictures each time that one came, has changed or is gone. Returns the last judgement, if any.

    Pictures that it does not cover are named at the end. Raises InUseError where another command used the lot all the
    time.
    """
    settled, judged, last, in_use = CompletePictureFinder(images), None, {}, None
    while not stop.is_set():
        complete = settled.look_for_complete_files()
        if complete and (complete.items() - last.items() or last.keys() - settled.first_seen.keys()):
            try:
                found = judge_and_write(config, only={*complete})
            except InUseError as error:
                in_use = error
                stop.wait(LOOK_EVERY_S)  # somebody reviews: later
                continue
            print_new_verdicts(found, judged)
            judged, last = found, complete
        stop.wait(LOOK_EVERY_S)
    settled.look_for_complete_files()
    late = [path for path, (state, _) in settled.first_seen.items() if last.get(path) != state]
    if late:
        names = ", ".join(escaped_on_one_line(relative_name(images, path)) for path in late)
        print(f"note: {counted(len(late), 'picture')} came too late to be judged: {names}")
    if judged is None and in_use:
        raise in_use
    return judged


def print_new_verdicts(judged: JudgedLot, before: JudgedLot | None) -> None:
    """Print a line for each picture whose verdict was not said yet, with its worst reason, and the counts."""
    said = {(v.file, v.sha256): v.verdict for v in before.verdicts} if before else {}
    for verdict in judged.verdicts:
        if said.get((verdict.file, verdict.sha256)) != verdict.verdict:
            first = verdict.reasons[0] if verdict.reasons and verdict.verdict != "accept" else None
            reason = f": {check_and_numbers(first)}" if first else ""
            print(f"{verdict.verdict}: {escaped_on_one_line(verdict.file)}{reason}", flush=True)
