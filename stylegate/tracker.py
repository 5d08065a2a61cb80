"""The only place that speaks to W&B: it copies what the files record and can never stop a run (docs/wandb.md).

Without W&B the tracker does nothing. With it, a thread of its own makes every call, in order: the run never waits for a
server that hangs. The first error (no account, dead server, full disk) switches W&B off, is printed once, and the run
goes on. W&B writes in the run's own directory. What a run used and made is recorded in its ledger with or without W&B.
"""

import atexit
import functools
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from stylegate import files, lineage, wandbrun
from stylegate.configgroups import TrackerConfig

INIT_S, FINISH_S = 15.0, 60.0  # seconds that W&B may take to begin a run, and to send the rest at its end
GRACE_S = 15.0  # seconds that W&B may exceed these limits by
MAX_WAITING = 10_000  # calls that wait for W&B; with more it is taken for dead


class Tracker(Protocol):
    """Where values, pictures and artifacts of a run are copied to.

    `step` is the optimizer step; without one, values belong to the newest row. A value never replaces another: a name
    that the row already has begins the next row.
    """

    def log_values(self, values: Mapping[str, float], step: int | None = None) -> None: ...
    def log_picture(self, name: str, image: Image.Image, step: int | None = None) -> None: ...
    def log_histogram(self, name: str, values: Sequence[float], step: int | None = None) -> None: ...
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def set_summary_values(self, values: Mapping[str, Any]) -> None: ...
    def send_alert(self, title: str, text: str) -> None: ...
    def log_artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None: ...
    def record_input_artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None: ...
    def highest_value_wandb_had_at_start(self, name: str) -> float: ...
    def finish_tracking(self) -> None: ...


class LedgerTracker:
    """A tracker that sends nothing; it only writes inputs and outputs to the ledger in `directory`, if one is given."""

    def __init__(self, directory: Path | None = None):
        self.directory = directory

    def log_values(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing: the ledger keeps inputs and outputs, and no values."""

    def log_picture(self, name: str, image: Image.Image, step: int | None = None) -> None:
        """Do nothing: the ledger keeps inputs and outputs, and no pictures."""

    def log_histogram(self, name: str, values: Sequence[float], step: int | None = None) -> None:
        """Do nothing: the ledger keeps inputs and outputs, and no histograms."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing: the ledger keeps inputs and outputs, and no tables."""

    def set_summary_values(self, values: Mapping[str, Any]) -> None:
        """Do nothing: the ledger keeps inputs and outputs, and no summaries."""

    def send_alert(self, title: str, text: str) -> None:
        """Do nothing: the ledger alerts nobody."""

    def log_artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        if self.directory:
            lineage.record_artifact(
                self.directory, "make", kind, name, lineage.given_or_computed_artifact_digest(facts), paths
            )

    def record_input_artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        if self.directory:
            lineage.record_artifact(
                self.directory, "use", kind, name, lineage.given_or_computed_artifact_digest(facts), paths
            )

    def highest_value_wandb_had_at_start(self, name: str) -> float:
        """Infinity: this tracker never lacks a value that would have to be sent again."""
        return math.inf

    def finish_tracking(self) -> None:
        """Do nothing: each row of the ledger is written at once, so that nothing is left to end."""


class WandbTracker:
    """A tracker that sends to the one W&B run of a directory, which the same directory continues.

    Only the beginning and the end of the run wait for W&B.
    """

    def __init__(self, settings: TrackerConfig, directory: Path, job: str, config: Mapping[str, Any]):
        self.settings, self.directory, self.job, self.config = settings, directory, job, config
        self.offline = "offline" in (settings.mode, os.environ.get("WANDB_MODE"))
        self.run: Any = None
        self.off = False
        self.known: dict[str, float] = {}  # the highest row, step and evaluation that W&B has
        self.calls: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self.asides: list[threading.Thread] = []
        self.thread = threading.Thread(target=self.make_queued_wandb_calls, daemon=True)
        self.thread.start()
        begun = threading.Event()
        self.calls.put(self.start_online_or_offline)
        self.calls.put(begun.set)
        if not begun.wait(2 * INIT_S + GRACE_S):
            self.switch_wandb_off(TimeoutError("W&B does not begin the run"))
            wandbrun.kill_wandb_service()
        self.row = int(self.known.get(wandbrun.ROW, -1)) + 1  # W&B drops values of an earlier row
        self.in_row: set[str] = set()  # names of the values in this row
        atexit.register(self.finish_tracking, 1)  # if an error ends the run

    def make_queued_wandb_calls(self) -> None:
        """Make the calls that wait in the queue, in order, until a None comes; runs in the thread."""
        while (call := self.calls.get()) is not None:
            self.call_or_switch_wandb_off(call)

    def call_or_switch_wandb_off(self, call: Callable[[], Any]) -> None:
        """Make one call; an error switches W&B off and does not reach the run."""
        try:
            call()
        except BaseException as error:
            self.switch_wandb_off(error)

    def switch_wandb_off(self, error: BaseException) -> None:
        """Switch W&B off and print why, once."""
        if not self.off:
            self.off = True
            rest = f" What it has received can be sent later: {self.sync_command()}." if self.run else ""
            why = wandbrun.wandb_error_in_words(error)
            print_to_stderr(f"note: W&B is off for this run ({why}). The run itself is not affected.{rest}")

    def enqueue(self, call: Callable[[], Any]) -> None:
        """Let the thread make a call, unless W&B is off by then."""
        if self.calls.qsize() > MAX_WAITING:
            self.switch_wandb_off(TimeoutError("W&B accepts no more values"))
        if not self.off:
            self.calls.put(lambda: None if self.off else call())

    def start_online_or_offline(self) -> None:
        """Begin the W&B run: online if that is wanted and works, else offline, under the same id."""
        wandbrun.set_wandb_environment(self.directory)
        identity = wandbrun.write_wandb_identity_and_return_it(self.directory, self.settings)
        config = dict(self.config) | wandbrun.code_digest_and_commit()

        def start_run_in_mode(mode: str) -> Any:
            return wandbrun.start_wandb_run(self.directory, identity, mode, self.job, config, (INIT_S, FINISH_S))

        why = ""
        if not self.offline:
            try:
                self.run = start_run_in_mode("online")
                self.known = {name: self.run.summary.get(name, -1) for name in (wandbrun.STEP, wandbrun.EVALUATED)}
                self.known[wandbrun.ROW] = self.run.starting_step - 1
            except Exception as error:
                self.offline, why = True, wandbrun.wandb_error_in_words(error)
                wandbrun.stop_wandb_service()
        if self.offline:
            self.known = wandbrun.read_highest_steps_moving_damaged_files(self.directory)
            self.run = start_run_in_mode("offline")
        if why:
            print_to_stderr(
                f"note: W&B cannot be reached ({why}). The run is stored offline. Send it later: {self.sync_command()}"
            )
        self.run.define_metric(wandbrun.STEP, hidden=True)
        self.run.define_metric(wandbrun.EVALUATED, hidden=True)
        self.run.define_metric("evaluation/*", step_metric=wandbrun.EVALUATED)

    def sync_command(self) -> str:
        """The command that sends the run's values to the server later."""
        if self.offline:
            return f"wandb sync {files.display_path(self.directory / 'wandb')}"
        return f"wandb sync --include-online {files.display_path(Path(self.run.dir).parent)}"

    def highest_value_wandb_had_at_start(self, name: str) -> float:
        """The highest value of `name` that W&B had when this run began, -1 if it had none; infinity if W&B is off."""
        return math.inf if self.off else self.known.get(name, -1)

    def wandb_row_number_for_values(self, names: Collection[str], step: int | None) -> int:
        """The W&B row for values of these names: `step`, or the newest row if that is later.

        W&B keeps only the last value of a name in a row. So if the row has one of these names already, the next row is
        used.
        """
        row = max(self.row, step or 0)
        if row == self.row and not self.in_row.isdisjoint(names):
            row += 1
        if row > self.row:
            self.row, self.in_row = row, set()
        self.in_row.update(names)
        return row

    def log_values(self, values: Mapping[str, Any], step: int | None = None) -> None:
        copy, row = dict(values), self.wandb_row_number_for_values(values.keys(), step)
        self.enqueue(lambda: self.run.log(copy, step=row))

    def log_picture(self, name: str, image: Image.Image, step: int | None = None) -> None:
        row = self.wandb_row_number_for_values([name], step)
        self.enqueue(lambda: self.run.log({name: wandbrun.as_wandb_image(image)}, step=row))

    def log_histogram(self, name: str, values: Sequence[float], step: int | None = None) -> None:
        finite = [float(v) for v in values if math.isfinite(v)]
        if finite:
            row = self.wandb_row_number_for_values([name], step)
            self.enqueue(lambda: self.run.log({name: wandbrun.wandb_histogram(finite)}, step=row))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Send a table, as the newest row's value of `name`. Cells may be PIL images; the first wandbrun.MAX_ROWS rows
        are sent.
        """
        row = self.wandb_row_number_for_values([name], None)
        self.enqueue(lambda: self.run.log({name: wandbrun.wandb_table(columns, rows)}, step=row))

    def set_summary_values(self, values: Mapping[str, Any]) -> None:
        copy = dict(values)
        self.enqueue(lambda: self.run.summary.update(copy))

    def send_alert(self, title: str, text: str) -> None:
        self.enqueue(lambda: self.run.alert(title, text))

    def log_artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        sha256 = lineage.given_or_computed_artifact_digest(facts)
        lineage.record_artifact(self.directory, "make", kind, name, sha256, paths)
        described = (name, kind, tuple(paths), dict(facts))
        self.enqueue(
            lambda: self.run.log_artifact(
                wandbrun.draft_artifact(*described), aliases=wandbrun.new_artifact_aliases(sha256)
            )
        )

    def record_input_artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        """Record an input in the ledger, and online in W&B too; `stylegate replay` adds those of offline runs later.

        The files may have to be sent first, so this has a thread of its own.
        """
        sha256 = lineage.given_or_computed_artifact_digest(facts)
        lineage.record_artifact(self.directory, "use", kind, name, sha256, paths)
        described = (name, kind, tuple(paths), dict(facts))
        if not self.offline and not self.off:
            work = functools.partial(
                self.call_or_switch_wandb_off, lambda: wandbrun.use_artifact(self.run, *described, sha256)
            )
            self.asides.append(threading.Thread(target=work, daemon=True))
            self.asides[-1].start()

    def finish_tracking(self, exit_code: int = 0) -> None:
        """Let W&B send what is left and end its run with `exit_code`. Waits for FINISH_S seconds and a grace time at
        most.
        """
        atexit.unregister(self.finish_tracking)
        self.calls.put(lambda: self.end_run(exit_code))
        self.calls.put(None)
        self.thread.join(FINISH_S + GRACE_S)
        if self.thread.is_alive():
            self.switch_wandb_off(TimeoutError("W&B does not end the run"))
            wandbrun.kill_wandb_service()
            self.thread.join(GRACE_S)

    def end_run(self, exit_code: int) -> None:
        """End the W&B run and its process; runs in the thread."""
        for aside in self.asides:
            aside.join(FINISH_S)
        try:
            if self.run:
                self.run.finish(exit_code)
                if self.offline and not self.off:
                    print_to_stderr(f"W&B is offline. Send this run with: {self.sync_command()}")
        finally:
            wandbrun.stop_wandb_service()


def print_to_stderr(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr)


def make_tracker(
    settings: TrackerConfig, directory: Path, job: str, config: Mapping[str, Any], main: bool = True
) -> Tracker:
    """The tracker that the config asks for; one that does nothing on processes other than the main one."""
    if not main:
        return LedgerTracker()
    if settings.name == "none" or "disabled" in (settings.mode, os.environ.get("WANDB_MODE")):
        return LedgerTracker(directory)
    return WandbTracker(settings, directory, job, config)
