"""The one seam to W&B: a mirror that can never hurt a run. Files on disk stay the truth (docs/wandb.md).

Without W&B it is a null object. With it, a thread of its own makes every call, in order: a server that hangs holds
nobody up, and the first error (no account, dead server, full disk) turns the mirror off, is said once, and the run goes
on. What W&B writes lies in the run's own directory. What a run used and made goes to its ledger either way.
"""

import atexit
import functools
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from stylegate import files, lineage, wandbrun
from stylegate.config import TrackerConfig

INIT_S, FINISH_S = 15.0, 60.0  # what a server may take to begin, and to take in what is left
GRACE_S = 15.0  # for W&B to keep to these
MAX_WAITING = 10_000  # calls that W&B has not answered: it never will


class Tracker(Protocol):
    """`step` is the optimizer step; without one, values belong to the newest."""

    def log(self, values: Mapping[str, float], step: int | None = None) -> None: ...
    def picture(self, name: str, image: Image.Image, step: int | None = None) -> None: ...
    def histogram(self, name: str, values: Sequence[float], step: int | None = None) -> None: ...
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def summary(self, values: Mapping[str, Any]) -> None: ...
    def alert(self, title: str, text: str) -> None: ...
    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None: ...
    def use(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None: ...
    def last(self, name: str) -> float: ...
    def finish(self) -> None: ...


class NullTracker:
    """No mirror; the ledger is written all the same, where there is a directory."""

    def __init__(self, directory: Path | None = None):
        self.directory = directory

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass

    def picture(self, name: str, image: Image.Image, step: int | None = None) -> None:
        pass

    def histogram(self, name: str, values: Sequence[float], step: int | None = None) -> None:
        pass

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def summary(self, values: Mapping[str, Any]) -> None:
        pass

    def alert(self, title: str, text: str) -> None:
        pass

    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        if self.directory:
            lineage.record(self.directory, "make", kind, name, lineage.digest_of(facts), paths)

    def use(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        if self.directory:
            lineage.record(self.directory, "use", kind, name, lineage.digest_of(facts), paths)

    def last(self, name: str) -> float:
        """The highest value of `name` that the mirror holds: nothing needs to be told to this one."""
        return math.inf

    def finish(self) -> None:
        pass


class WandbTracker:
    """One W&B run for one directory; a resumed one continues it. Only its beginning and its end wait for W&B."""

    def __init__(self, settings: TrackerConfig, directory: Path, job: str, config: Mapping[str, Any]):
        self.settings, self.directory, self.job, self.config = settings, directory, job, config
        self.offline = "offline" in (settings.mode, os.environ.get("WANDB_MODE"))
        self.run: Any = None
        self.off = False
        self.held: dict[str, float] = {}
        self.calls: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self.asides: list[threading.Thread] = []
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        begun = threading.Event()
        self.calls.put(self.begin)
        self.calls.put(begun.set)
        if not begun.wait(2 * INIT_S + GRACE_S):
            self.give_up(TimeoutError("it does not begin"))
            wandbrun.kill()
        self.newest = int(self.held.get(wandbrun.STEP, -1)) + 1  # W&B's own step: it takes none before
        atexit.register(self.finish, 1)  # of a run that an error ends

    def work(self) -> None:
        while (call := self.calls.get()) is not None:
            self.harmless(call)

    def harmless(self, call: Callable[[], Any]) -> None:
        """W&B's errors end the mirror, not the run."""
        try:
            call()
        except BaseException as error:
            self.give_up(error)

    def give_up(self, error: BaseException) -> None:
        if not self.off:
            self.off = True
            kept = f"; what it has got: {self.sync_command()}" if self.run else ""
            say(f"note: W&B is off for this run ({wandbrun.in_words(error)}){kept}; nothing else changes")

    def later(self, call: Callable[[], Any]) -> None:
        if self.calls.qsize() > MAX_WAITING:
            self.give_up(TimeoutError("it takes nothing in"))
        if not self.off:
            self.calls.put(lambda: None if self.off else call())

    def begin(self) -> None:
        """Online if that is wanted and works, else offline, under the same id."""
        wandbrun.surroundings(self.directory)
        told = wandbrun.identity(self.directory, self.settings)
        config = dict(self.config) | wandbrun.code_facts()

        def start(mode: str) -> Any:
            return wandbrun.start(self.directory, told, mode, self.job, config, (INIT_S, FINISH_S))

        why = ""
        if not self.offline:
            try:
                self.run = start("online")
                evaluated = self.run.summary.get(wandbrun.EVALUATED, -1)
                self.held = {wandbrun.STEP: self.run.starting_step - 1, wandbrun.EVALUATED: evaluated}
            except Exception as error:
                self.offline, why = True, wandbrun.in_words(error)
                wandbrun.close()
        if self.offline:
            self.held = wandbrun.records(self.directory)
            self.run = start("offline")
        if why:
            say(f"note: W&B cannot be reached ({why}): this run is kept offline; later: {self.sync_command()}")
        self.run.define_metric(wandbrun.EVALUATED, hidden=True)
        self.run.define_metric("evaluation/*", step_metric=wandbrun.EVALUATED)

    def sync_command(self) -> str:
        if self.offline:
            return f"wandb sync {files.shown(self.directory / 'wandb')}"
        return f"wandb sync --include-online {files.shown(Path(self.run.dir).parent)}"

    def last(self, name: str) -> float:
        return math.inf if self.off else self.held.get(name, -1)

    def at(self, step: int | None) -> int:
        self.newest = max(self.newest, step or 0)
        return self.newest

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        told, place = dict(values), self.at(step)
        self.later(lambda: self.run.log(told, step=place))

    def picture(self, name: str, image: Image.Image, step: int | None = None) -> None:
        place = self.at(step)
        self.later(lambda: self.run.log({name: wandbrun.cell(image)}, step=place))

    def histogram(self, name: str, values: Sequence[float], step: int | None = None) -> None:
        place, told = self.at(step), [float(v) for v in values if math.isfinite(v)]
        if told:
            self.later(lambda: self.run.log({name: wandbrun.histogram(told)}, step=place))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows may hold PIL images; the first wandbrun.MAX_ROWS are sent."""
        place = self.at(None)
        self.later(lambda: self.run.log({name: wandbrun.table(columns, rows)}, step=place))

    def summary(self, values: Mapping[str, Any]) -> None:
        told = dict(values)
        self.later(lambda: self.run.summary.update(told))

    def alert(self, title: str, text: str) -> None:
        self.later(lambda: self.run.alert(title, text))

    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        sha256 = lineage.digest_of(facts)
        lineage.record(self.directory, "make", kind, name, sha256, paths)
        told = (name, kind, tuple(paths), dict(facts))
        self.later(lambda: self.run.log_artifact(wandbrun.draft(*told), aliases=wandbrun.aliases(sha256)))

    def use(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        """Offline W&B knows no inputs: the ledger keeps them (`stylegate replay`). Online the files may have to be sent
        first, which holds up nothing else.
        """
        sha256 = lineage.digest_of(facts)
        lineage.record(self.directory, "use", kind, name, sha256, paths)
        told = (name, kind, tuple(paths), dict(facts))
        if not self.offline and not self.off:
            work = functools.partial(self.harmless, lambda: wandbrun.use(self.run, *told, sha256))
            self.asides.append(threading.Thread(target=work, daemon=True))
            self.asides[-1].start()

    def finish(self, exit_code: int = 0) -> None:
        """Let W&B take in what is left, for FINISH_S at most."""
        atexit.unregister(self.finish)
        self.calls.put(lambda: self.end(exit_code))
        self.calls.put(None)
        self.thread.join(FINISH_S + GRACE_S)
        if self.thread.is_alive():
            self.give_up(TimeoutError("it does not end"))
            wandbrun.kill()
            self.thread.join(GRACE_S)

    def end(self, exit_code: int) -> None:
        for aside in self.asides:
            aside.join(FINISH_S)
        try:
            if self.run:
                self.run.finish(exit_code)
                if self.offline and not self.off:
                    say(f"W&B, offline: {self.sync_command()}")
        finally:
            wandbrun.close()


def say(text: str) -> None:
    print(text, file=sys.stderr)


def tracker_of(
    settings: TrackerConfig, directory: Path, job: str, config: Mapping[str, Any], main: bool = True
) -> Tracker:
    """The tracker that the config asks for; processes other than the main one stay silent."""
    if not main:
        return NullTracker()
    if settings.name == "none" or "disabled" in (settings.mode, os.environ.get("WANDB_MODE")):
        return NullTracker(directory)
    return WandbTracker(settings, directory, job, config)
