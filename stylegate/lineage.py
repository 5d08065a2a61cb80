"""What was made from what: each run and batch has a lineage.jsonl, which is only appended to and needs no tracker.

    stylegate replay checkpoints/demo-* data/batches/demo-*

A row says that the work in a directory used or made a thing: its type, name, digest, and its path from there. W&B does
not record what an offline run used, nor the artifacts of a run that was moved. `stylegate replay` prints the chain from
brand set to package and sends W&B what it lacks. Things are found by their digest, so sending twice changes nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegate import files, wandbrun
from stylegate.errors import ConfigError, DataError, ExitCode, SurroundingsError

LEDGER = "lineage.jsonl"
EXAMPLE = "checkpoints/demo-* data/batches/demo-*"
TYPES = (
    "base",
    "brand-set",
    "lora",
    "batch",
    "calibration",
    "certificate",
    "package",
)  # each is made from earlier ones
KINDS = ("use", "make")
ROW = ("kind", "artifact", "type", "sha256", "paths")
INIT_S, FINISH_S = 30, 600  # seconds for W&B, to which whole brand sets may have to be sent


def record_artifact(directory: Path, kind: str, what: str, name: str, sha256: str, paths: Sequence[Path]) -> None:
    """Record in `directory` that its work used or made (`kind`: use, make) an artifact of type `what`; each row only
    once.
    """
    assert kind in KINDS and what in TYPES, (kind, what)
    relative = [Path(os.path.relpath(path, directory)).as_posix() for path in paths]
    row = dict(zip(ROW, (kind, name, what, sha256, relative), strict=True))
    directory.mkdir(parents=True, exist_ok=True)
    if row not in files.read_jsonl(directory / LEDGER, *ROW):
        files.append_jsonl(directory / LEDGER, row)


def given_or_computed_artifact_digest(facts: Mapping[str, Any]) -> str:
    """The `sha256` among the facts of an artifact; if they have none, a digest of all facts."""
    return facts.get("sha256") or files.canonical_sha256(dict(facts))


def print_lineage_and_send_missing(paths: list[Path]) -> int:
    """Print the lineage in these directories of runs or batches, and send W&B the records that it lacks. Returns 0.

    Raises ConfigError without directories, and SurroundingsError that names all records if W&B cannot be reached.
    """
    if not paths:
        raise ConfigError("replay needs directories of runs or batches", next_step=f"stylegate replay {EXAMPLE}")
    ledgers = {path: read_lineage(path) for path in paths}
    print("\n".join(lineage_lines(ledgers)))
    in_order = sorted(ledgers, key=lambda path: min(map(chain_position_of_artifact_type, ledgers[path])))
    try:
        sent = [send_lineage_to_wandb(path, ledgers[path]) for path in in_order]
    except Exception as error:
        raise SurroundingsError(
            f"W&B cannot be reached ({wandbrun.wandb_error_in_words(error)}); this would be sent:",
            [f"{path.name}: {lineage_row_in_words(row)}" for path in in_order for row in ledgers[path]],
            "wandb login, or set WANDB_API_KEY; the same command sends only what is still missing.",
        ) from None
    finally:
        wandbrun.stop_wandb_service()
    print(f"{sum(sent)} of {sum(map(len, ledgers.values()))} records were sent to W&B; it had the others.")
    return ExitCode.PASS


def read_lineage(path: Path) -> list[dict[str, Any]]:
    """The rows of lineage.jsonl in the folder `path`: first what it made, then what it used, each by type.

    Types are in the order from brand set to package. Raises DataError for a file that is empty or damaged.
    """
    rows = files.read_jsonl(path / LEDGER, *ROW)
    if not rows or any(row["kind"] not in KINDS or row["type"] not in TYPES for row in rows):
        raise DataError(f"this is no ledger of a run or batch: {files.display_path(path / LEDGER)}")
    return sorted(rows, key=lambda row: (row["kind"] == "use", chain_position_of_artifact_type(row)))


def chain_position_of_artifact_type(row: Mapping[str, Any]) -> int:
    """The position of a row's type on the way from brand set to package, 0 for the first."""
    return TYPES.index(row["type"])


def lineage_lines(ledgers: Mapping[Path, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The lineage as text, one line for each artifact: type, name, digest, which runs made it and which used it."""
    found: dict[tuple[int, str, str], dict[str, list[str]]] = {}
    for path, rows in ledgers.items():
        for row in rows:
            place = found.setdefault(
                (chain_position_of_artifact_type(row), row["artifact"], row["sha256"]), {"use": [], "make": []}
            )
            place[row["kind"]].append(path.name)
    lines = []
    for (number, name, sha256), by in sorted(found.items()):
        made = f"made by {', '.join(by['make'])}" if by["make"] else "made elsewhere" if number > 1 else "given"
        used = f"; used by {', '.join(by['use'])}" if by["use"] else ""
        lines.append(f"{TYPES[number]:<12} {name}  {sha256[:12]}  {made}{used}")
    return lines


def lineage_row_in_words(row: Mapping[str, Any]) -> str:
    """A row of lineage.jsonl as one line: used or made, type, W&B name, alias of the digest."""
    name = wandbrun.valid_wandb_name(row["artifact"])
    return f"{row['kind']} {row['type']} {name}:{wandbrun.digest_alias(row['sha256'])}"


def send_lineage_to_wandb(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Send W&B the records of one directory that it lacks, under the directory's W&B run. Returns their number."""
    import wandb

    known = wandbrun.read_or_create_wandb_identity(path)
    wandbrun.set_wandb_environment(path)
    api = wandb.Api()
    place = f"{known['entity'] or api.default_entity}/{known['project']}"
    used = wandbrun.aliases_of_used_artifacts(api, f"{place}/{known['id']}")

    def is_in_wandb(row: Mapping[str, Any]) -> bool:
        alias = wandbrun.digest_alias(row["sha256"])
        if row["kind"] == "use":
            return alias in used
        return api.artifact_exists(f"{place}/{wandbrun.valid_wandb_name(row['artifact'])}:{alias}", type=row["type"])

    lacking = [row for row in rows if not is_in_wandb(row)]
    if not lacking:
        return 0
    run = wandbrun.start_wandb_run(path, known, "online", None, {}, (INIT_S, FINISH_S))
    try:
        for row in lacking:
            given = [path / part for part in row["paths"]]
            facts = (row["artifact"], row["type"], given, {"sha256": row["sha256"]})
            if row["kind"] == "make":
                made = run.log_artifact(
                    wandbrun.draft_artifact(*facts), aliases=wandbrun.new_artifact_aliases(row["sha256"])
                )
                made.wait(timeout=FINISH_S)
            else:
                wandbrun.use_artifact(run, *facts, row["sha256"])
            print(f"sent: {path.name}: {lineage_row_in_words(row)}")
        run.finish()
    except BaseException:  # Ctrl-C too: W&B would wait for its server first
        wandbrun.kill_wandb_service()
        raise
    return len(lacking)
