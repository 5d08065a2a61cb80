"""The one seam to W&B: a mirror that can never hurt a run. Files on disk stay the truth.

Without W&B it is a null object. With it, every error (no account, dead server, full disk) turns the mirror off, is
said once, and the run goes on. Everything W&B writes lies in the run's own directory.
"""

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from stylegate import files
from stylegate.config import TrackerConfig

MAX_TABLE_ROWS = 500  # W&B's tables grow slow beyond a few hundred pictures


class Tracker(Protocol):
    def log(self, values: Mapping[str, float], step: int | None = None) -> None: ...
    def picture(self, name: str, image: Image.Image, step: int | None = None) -> None: ...
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None: ...
    def finish(self) -> None: ...


class NullTracker:
    """No mirror."""

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass

    def picture(self, name: str, image: Image.Image, step: int | None = None) -> None:
        pass

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        pass

    def finish(self) -> None:
        pass


def harmless(method: Callable) -> Callable:
    """W&B's errors end the mirror, not the run."""

    @functools.wraps(method)
    def guarded(self: "WandbTracker", *arguments: Any, **options: Any) -> None:
        if self.run is None:
            return
        try:
            method(self, *arguments, **options)
        except Exception as error:
            self.give_up(error)

    return guarded


class WandbTracker:
    """One W&B run for one directory; its id is made from the directory's name, so a resumed run continues it."""

    def __init__(self, settings: TrackerConfig, directory: Path, job: str, config: Mapping[str, Any]):
        self.run: Any = None
        self.directory = directory
        self.offline = settings.mode == "offline"
        place = directory / "wandb"
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name in ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
                os.environ[f"WANDB_{name}"] = str(directory if name == "DIR" else place / name.lower())
            os.environ["WANDB_SILENT"] = "true"
            import wandb

            self.run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                mode="offline" if self.offline else "online",
                id=files.digest(f"{directory.name}-{job}")[:12],
                name=f"{directory.name}",
                job_type=job,
                dir=str(directory),
                config=dict(config),
                resume="allow",
                settings=wandb.Settings(init_timeout=15, silent=True, console="off", disable_git=True),
            )
        except Exception as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        self.run = None
        print(f"note: W&B is off for this run ({type(error).__name__}: {error}); nothing else changes", file=sys.stderr)

    @harmless
    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.run.log(dict(values), step=step)

    @harmless
    def picture(self, name: str, image: Image.Image, step: int | None = None) -> None:
        import wandb

        self.run.log({name: wandb.Image(image)}, step=step)

    @harmless
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows may hold PIL images; at most MAX_TABLE_ROWS are sent."""
        import wandb

        cells: list[Any] = [
            [wandb.Image(c) if isinstance(c, Image.Image) else c for c in row] for row in rows[:MAX_TABLE_ROWS]
        ]
        self.run.log({name: wandb.Table(columns=list(columns), data=cells)})

    @harmless
    def artifact(self, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> None:
        import wandb

        made = wandb.Artifact(name, type=kind, metadata=dict(facts))
        for path in paths:
            made.add_dir(str(path)) if path.is_dir() else made.add_file(str(path))
        self.run.log_artifact(made)

    @harmless
    def finish(self) -> None:
        self.run.finish()
        if self.offline:
            print(f"W&B, offline: wandb sync {files.shown(self.directory / 'wandb')}/offline-run-*")


def tracker_of(
    settings: TrackerConfig, directory: Path, job: str, config: Mapping[str, Any], main: bool = True
) -> Tracker:
    """The tracker that the config asks for; processes other than the main one stay silent."""
    if settings.name == "wandb" and main:
        return WandbTracker(settings, directory, job, config)
    return NullTracker()
