"""What W&B needs around a run: directories, an identity, what it already has, artifacts, errors without keys.

W&B is imported inside the functions that use it.
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
from stylegate.configgroups import TrackerConfig
from stylegate.errors import SurroundingsError

IDENTITY = "wandb.json"  # in the run's directory: the id, project and team of its one W&B run
BEGINS = b":W&B"  # the first bytes of W&B's local file
TORN = "torn"  # a folder for parts that a kill has damaged; they are not synced
ROW = "_step"  # W&B's number of a history row; it only grows, and may run ahead of the optimizer step
STEP = "step"  # the optimizer step, a value of each row of training
EVALUATED = "evaluation/step"  # the x axis of evaluations, since one may be logged late
ROOMS = ("stylegate", "eval", "train")  # the code
READ_S, KILL_S = 60, 3
MAX_WORDS = 300  # characters of an error
MAX_ROWS = 500  # W&B's tables grow slow beyond a few hundred pictures


def set_wandb_environment(directory: Path) -> None:
    """Set the environment so that W&B writes below `directory`, asks for nothing and sends no error reports.

    WANDB_CONFIG_DIR is left alone: `wandb login --host` stores the server's address there, and a run only reads it.
    """
    place = create_folder(directory / "wandb")
    os.environ["WANDB_DIR"] = str(directory)
    for what in ("data", "cache", "artifact"):
        os.environ[f"WANDB_{what.upper()}_DIR"] = str(place / what)
    os.environ["WANDB_SILENT"] = "true"  # before W&B's first import: then it never asks for a key
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def write_wandb_identity_and_return_it(directory: Path, settings: TrackerConfig) -> dict[str, Any]:
    """The id, project and team of the run's one W&B run, which are written to wandb.json. The id is random and made
    once.

    So it stays when the directory is moved, and two people's runs of one name are two runs.
    """
    found = {
        "id": read_or_create_wandb_identity(directory)["id"],
        "project": settings.project,
        "entity": settings.entity,
    }
    files.write_json(directory / IDENTITY, found)
    return found


def read_or_create_wandb_identity(directory: Path) -> dict[str, Any]:
    """The content of wandb.json. Where it is missing it is written, with a new random id, and project and team by W&B's
    own environment variables.
    """
    path = directory / IDENTITY
    if not path.exists():
        project = os.environ.get("WANDB_PROJECT", TrackerConfig().project)
        entity = os.environ.get("WANDB_ENTITY")
        files.write_json(path, {"id": uuid.uuid4().hex[:12], "project": project, "entity": entity})
    return files.read_json(path, "the run's W&B identity", "id", "project", "entity")


def start_wandb_run(
    directory: Path, identity: Mapping[str, Any], mode: Any, job: str | None, config: Any, limits: tuple[float, float]
) -> Any:
    """Start the W&B run of `directory`, or resume it, and return it. `limits` are the seconds that it may take to begin
    and to end.
    """
    import wandb

    return wandb.init(
        **identity,
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


def read_highest_steps_moving_damaged_files(directory: Path) -> dict[str, float]:
    """The highest row, step and evaluation in W&B's local files of the run, by name; -1 for none. Damaged files are
    moved to torn/.

    A part that a kill has damaged is moved aside, and its values will be logged again: `wandb sync` stops at such a
    part, and sends it twice if it is run twice. Raises SurroundingsError where W&B's own tool cannot read a part for
    another reason; the part stays where it is.
    """
    newest = {ROW: -1.0, STEP: -1.0, EVALUATED: -1.0}
    for part in sorted((directory / "wandb").glob("*run-*")):
        rows = rows_of_wandb_log(part)
        if part.name.startswith("offline-") and not any(row["type"] == "exit" for row in rows):
            part.rename(create_folder(directory / "wandb" / TORN) / part.name)
            continue
        for row in rows:
            item = row.get("history", {}).get("item", {})
            newest = {name: max(value, item.get(name, -1)) for name, value in newest.items()}
    return newest


def rows_of_wandb_log(part: Path) -> list[dict[str, Any]]:
    """The rows of W&B's local file in the folder `part`, by W&B's own tool; [] where there is none, or it does not
    begin as such a file does. Of a torn one they are those before the tear.

    Raises SurroundingsError where the tool itself fails, which says nothing about the file.
    """
    log = next(iter(sorted(part.glob("*.wandb"))), None)
    if log is None or not begins_as_wandb_log(log):
        return []
    read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(part)]
    done = subprocess.run(read, capture_output=True, text=True, timeout=READ_S)
    if done.returncode:
        raise SurroundingsError(
            f"wandb leet inspect cannot read {files.display_path(part)} (exit code {done.returncode}): "
            f"{done.stderr.strip()[-MAX_WORDS:]}",
            next_step="install the version of wandb that constraints.txt names.",
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def begins_as_wandb_log(path: Path) -> bool:
    """Whether a file begins as W&B's local files do."""
    with path.open("rb") as file:
        return file.read(len(BEGINS)) == BEGINS


def create_folder(folder: Path) -> Path:
    """The folder, created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def code_digest_and_commit() -> dict[str, Any]:
    """`code`, the digest of all source code, and, if the code is a git checkout, `git`: what
    `checkout.git_commit_and_clean_flag` returns.
    """
    found: dict[str, Any] = {
        "code": files.canonical_sha256([files.folder_digest(files.ROOT / r, "**/*.py") for r in ROOMS])
    }
    if (at := checkout.git_commit_and_clean_flag())["commit"]:
        found["git"] = at
    return found


def draft_artifact(name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any]) -> Any:
    """A W&B artifact with `facts` as its metadata and those of `paths` that exist as its files.

    If none of them exists, the facts are its one file, facts.json, since W&B sends no artifact without a file. It is
    not sent yet. W&B copies the files into its folder below the run's directory.
    """
    import wandb

    made = wandb.Artifact(valid_wandb_name(name), type=kind, metadata=dict(facts))
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


def valid_wandb_name(name: str) -> str:
    """The name in a form that W&B allows: letters, digits, and . _ - alone, others replaced by -; at most 128."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:128]


def digest_alias(sha256: str) -> str:
    """The alias by which an artifact is found in W&B, from the sha256 of its content: "sha256-..."."""
    return f"sha256-{sha256}"


def new_artifact_aliases(sha256: str) -> list[str]:
    """The W&B aliases that a new artifact gets: `latest`, and one that names its sha256."""
    return ["latest", digest_alias(sha256)]


def use_artifact(run: Any, name: str, kind: str, paths: Sequence[Path], facts: Mapping[str, Any], sha256: str) -> None:
    """Mark an artifact as used by the run; send it first if the server does not have it."""
    from wandb.errors import CommError

    try:
        run.use_artifact(f"{valid_wandb_name(name)}:{digest_alias(sha256)}", type=kind)
    except (ValueError, CommError):  # it is not there; if something else is wrong, the next call says so
        run.use_artifact(draft_artifact(name, kind, paths, facts), aliases=new_artifact_aliases(sha256))


def aliases_of_used_artifacts(api: Any, path: str) -> set[str]:
    """The aliases of all artifacts that a run has used, by W&B's public API; empty if there is no such run."""
    from wandb.errors import CommError

    try:
        found = api.run(path).used_artifacts()
    except (ValueError, CommError) as error:
        if not isinstance(getattr(error, "exc", error), ValueError):
            raise
        return set()
    return {alias for artifact in found for alias in artifact.aliases}


def as_wandb_image(value: Any) -> Any:
    """A PIL image as a W&B image; any other value unchanged."""
    import wandb

    return wandb.Image(value) if isinstance(value, Image.Image) else value


def wandb_histogram(values: Sequence[float]) -> Any:
    """W&B's histogram of the values."""
    import wandb

    return wandb.Histogram(list(values))


def wandb_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """W&B's table of the first MAX_ROWS rows; cells may be PIL images."""
    import wandb

    return wandb.Table(
        columns=list(columns), data=[[as_wandb_image(value) for value in row] for row in rows[:MAX_ROWS]]
    )


def stop_wandb_service() -> None:
    """End W&B's own process, so that the next run starts one with its own environment."""
    import wandb

    with suppress(Exception):  # after `kill_wandb_service` the process is gone
        wandb.teardown()


def kill_wandb_service() -> None:
    """End W&B's own process by force: in wandb 0.31 finish_timeout has no effect while an alert is sent in vain.

    W&B writes in blocks of 32 KiB, so the last values of an offline run are lost.
    """
    import psutil  # here, since every gate imports this file and few have a W&B process to end

    running = wandb_service_processes()
    for process in running:
        process.terminate()
    for process in psutil.wait_procs(running, KILL_S)[1]:
        process.kill()


def wandb_service_processes() -> list[Any]:
    """The psutil.Process of each wandb-core that this process has started."""
    import psutil

    return [child for child in psutil.Process().children() if child.name() == "wandb-core"]


def wandb_error_in_words(error: BaseException) -> str:
    """An error as one line of at most MAX_WORDS characters, with the W&B key cut out."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if key := os.environ.get("WANDB_API_KEY"):
        text = text.replace(key, "***")
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}..."
