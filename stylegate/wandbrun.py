"""What W&B needs around a run: directories, an identity, what it holds of the run, artifacts, words without keys.

Nothing here imports W&B before it is asked to.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from stylegate import checkout, files
from stylegate.config import TrackerConfig

IDENTITY = "wandb.json"  # in the run's directory: the id of its one W&B run, and where that is
TORN = "torn"  # a folder: what a kill left, not to be synced
STEP = "_step"  # W&B's own, the optimizer step of training's values
EVALUATED = "evaluation/step"  # the x axis of evaluations, since one may be told late
ROOMS = ("stylegate", "eval", "train")  # the code
READ_S, KILL_S = 60, 3
MAX_WORDS = 300  # characters of an error
MAX_ROWS = 500  # W&B's tables grow slow beyond a few hundred pictures


def surroundings(directory: Path) -> None:
    """What W&B writes goes below `directory`; it asks nothing and reports to nobody but its server.

    WANDB_CONFIG_DIR stays: `wandb login --host` keeps the server's address there, and a run writes nothing to it.
    """
    place = made(directory / "wandb")
    os.environ["WANDB_DIR"] = str(directory)
    for what in ("data", "cache", "artifact"):
        os.environ[f"WANDB_{what.upper()}_DIR"] = str(place / what)
    os.environ["WANDB_SILENT"] = "true"  # before W&B's first import: then it never asks for a key
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def identity(directory: Path, settings: TrackerConfig) -> dict[str, Any]:
    """The run's id, made once; it stays when the directory is moved, and two people's runs of one name never meet."""
    before = known(directory)
    found = {"id": before["id"], "project": settings.project, "entity": settings.entity}
    files.write_json(directory / IDENTITY, found)
    return found


def known(directory: Path) -> dict[str, Any]:
    """The same of a directory as it is: where it had no tracker, what W&B's own variables name."""
    path = directory / IDENTITY
    if not path.exists():
        project = os.environ.get("WANDB_PROJECT", TrackerConfig().project)
        entity = os.environ.get("WANDB_ENTITY")
        files.write_json(path, {"id": uuid.uuid4().hex[:12], "project": project, "entity": entity})
    return files.read_json(path, "the run's W&B identity", "id", "project", "entity")


def start(
    directory: Path, told: Mapping[str, Any], mode: Any, job: str | None, config: Any, limits: tuple[float, float]
) -> Any:
    """The W&B run of `directory`, new or resumed; `limits` are the seconds it may take to begin and to end."""
    import wandb

    return wandb.init(
        **told,
        mode=mode,
        name=directory.name,
        job_type=job,
        dir=str(directory),
        config=dict(config),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            init_timeout=limits[0],
            finish_timeout=limits[1],
            finish_timeout_raises=True,
            silent=True,
            console="off",
            disable_git=True,
        ),
    )


def records(directory: Path) -> dict[str, float]:
    """The newest step and evaluation in what W&B keeps of the run on disk, read with its own documented tool.

    What a kill has torn is set aside, to be told again: `wandb sync` stops at it, and sends it twice if asked twice.
    """
    held = {STEP: -1.0, EVALUATED: -1.0}
    for part in sorted((directory / "wandb").glob("*run-*")):
        read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(part)]
        out = subprocess.run(read, capture_output=True, text=True, timeout=READ_S).stdout
        rows = [json.loads(line) for line in out.splitlines()]
        if part.name.startswith("offline-") and not any(row["type"] == "exit" for row in rows):
            part.rename(made(directory / "wandb" / TORN) / part.name)
            continue
        for row in rows:
            item = row.get("history", {}).get("item", {})
            held = {name: max(newest, item.get(name, -1)) for name, newest in held.items()}
    return held


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def code_facts() -> dict[str, Any]:
    """The digest of the code, and the checkout's commit where it is one."""
    found: dict[str, Any] = {"code": files.digest([files.folder_digest(files.ROOT / r, "**/*.py") for r in ROOMS])}
    if (at := checkout.commit())["commit"]:
        found["git"] = at
    return found


def draft(name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> Any:
    """A W&B artifact of what still lies there; its files are copied below the run's directory."""
    import wandb

    made = wandb.Artifact(fit(name), type=kind, metadata=dict(facts))
    present = [path for path in paths if path.exists()]
    if not present:
        with made.new_file("facts.json") as file:
            file.write(json.dumps(dict(facts)))
    for path in present:
        if path.is_dir():
            made.add_dir(str(path), name=path.name if len(present) > 1 else None)
        else:
            made.add_file(str(path))
    return made


def fit(name: str) -> str:
    """As W&B wants names: letters, digits, . _ -"""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:128]


def alias(sha256: str) -> str:
    """A thing's digest names it: what is there is found by what it is."""
    return f"sha256-{sha256}"


def aliases(sha256: str) -> list[str]:
    return ["latest", alias(sha256)]


def use(run: Any, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any], sha256: str) -> None:
    """Mark what the run used; what the server does not have yet is sent."""
    from wandb.errors import CommError

    try:
        run.use_artifact(f"{fit(name)}:{alias(sha256)}", type=kind)
    except (ValueError, CommError):  # it is not there; if something else is wrong, the next call says so
        run.use_artifact(draft(name, kind, paths, facts), aliases=aliases(sha256))


def used_by(api: Any, path: str) -> set[str]:
    """Aliases of what a run used, by W&B's public API; none if there is no such run."""
    from wandb.errors import CommError

    try:
        found = api.run(path).used_artifacts()
    except (ValueError, CommError) as error:
        if not isinstance(getattr(error, "exc", error), ValueError):
            raise
        return set()
    return {alias for artifact in found for alias in artifact.aliases}


def cell(value: Any) -> Any:
    """A picture as W&B's, anything else as it is."""
    import wandb

    return wandb.Image(value) if isinstance(value, Image.Image) else value


def histogram(values: Sequence[float]) -> Any:
    import wandb

    return wandb.Histogram(list(values))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[[cell(value) for value in row] for row in rows[:MAX_ROWS]])


def close() -> None:
    """End W&B's own process; the next run begins with its own surroundings."""
    import wandb

    with suppress(Exception):  # after a `kill` there is nobody to talk to
        wandb.teardown()


def kill() -> None:
    """End W&B's own process by force: its finish_timeout does not hold while it tells a dead server of an alert (0.31).

    It writes in blocks of 32 KiB, so that the last values are lost on it.
    """
    import psutil  # here, since every gate imports this file and few have a W&B process to end

    running = processes()
    for process in running:
        process.terminate()
    for process in psutil.wait_procs(running, KILL_S)[1]:
        process.kill()


def processes() -> list[Any]:
    """The psutil.Process of each wandb-core that this process has started."""
    import psutil

    return [child for child in psutil.Process().children() if child.name() == "wandb-core"]


def in_words(error: BaseException) -> str:
    """What an error says, in a line, without the key."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if key := os.environ.get("WANDB_API_KEY"):
        text = text.replace(key, "***")
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}..."
