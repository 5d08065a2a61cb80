"""Run a stage over many rows with the configured engine; the results are the same bytes with each of them.

    stylegate score images=DIR references=DIR engine=accelerate engine.workers=8
    stylegate score images=DIR references=DIR engine=ray engine.address=auto
    stylegate score images=DIR references=DIR engine=slurm engine.partition=gpu engine.workers=40

All three do the same: the rows are written as parts to a folder that all workers see (eval/engines/parts.py), workers
do the parts, and this process takes each result as it appears. Which worker does what is the engine's affair.
"""

import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from eval.engines import parts
from eval.engines.work import do_named_parts
from stylegate import hardware
from stylegate.config import Config, EngineConfig
from stylegate.errors import ConfigError, SurroundingsError

LOG = "workers.log"  # what processes of accelerate print
SECONDS = 0.3  # between two looks at the folder
FUTILE = 3  # times that all workers end before any began a part, until this is an error


def results_of_parts(
    config: Config, folder: Path, settings: Mapping[str, Any], rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, parts.Row], list[str]]]:
    """Do all rows with config.engine; yields what became of each part's rows, and the ids that killed their workers.

    `settings` name the stage and all that it needs, as JSON. Raises ConfigError if the engine is not installed,
    DataError for what a worker could not do, SurroundingsError if workers end without an error and without progress.
    """
    engine, on_gpu = config.engine, hardware.device_type(config.hardware) == "cuda"
    require_installed(engine.name)
    names = parts.write_parts(folder, settings, rows, engine.part_size)
    begin = {"accelerate": begin_accelerate, "ray": begin_ray, "slurm": begin_slurm}[engine.name]
    open_parts, futile = list(names), 0
    while unfinished := parts.unfinished_parts(folder, names):
        before = len(unfinished), parts.deaths(folder)
        for _ in begin(engine, folder, unfinished, on_gpu):  # ends when no worker runs any more
            yield from finished(folder, open_parts)
        yield from finished(folder, open_parts)
        parts.raise_error_of_workers(folder)
        futile = futile + 1 if (len(parts.unfinished_parts(folder, names)), parts.deaths(folder)) == before else 0
        if futile == FUTILE:
            raise SurroundingsError(
                f"engine={engine.name}: its workers ended and did nothing",
                next_step=f"read {folder / LOG} or the files in {folder / 'jobs'}; then the same command again.",
            )
    yield from finished(folder, open_parts)


def finished(folder: Path, open_parts: list[str]) -> Iterator[tuple[dict[str, parts.Row], list[str]]]:
    """Yield the result of each of the open parts that has one, and take this part off the list."""
    unfinished = set(parts.unfinished_parts(folder, open_parts))
    for name in [name for name in open_parts if name not in unfinished]:
        open_parts.remove(name)
        yield parts.read_part(folder, name)


def require_installed(engine: str) -> None:
    """Raises ConfigError if the engine's package is missing."""
    package = {"ray": "ray", "slurm": "submitit", "accelerate": "accelerate"}[engine]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"engine={engine} needs the package {package}", next_step=f"pip install 'stylegate[{engine}]'."
        )


def begin_accelerate(engine: EngineConfig, folder: Path, names: list[str], on_gpu: bool) -> Iterator[None]:
    """Do the parts `names` with processes on this machine, which `accelerate launch` begins; if one dies it ends all of
    them. Yields every SECONDS until they have ended.
    """
    workers = str(min(engine.workers or num_devices(on_gpu), len(names)))
    # --cpu would silently begin one process (accelerate 1.15; findings/accelerate_two_cpu_processes_are_one.sh).
    words = ["--multi_gpu", "--num_processes", workers, "--num_machines", "1", "--mixed_precision", "no"]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *(words if workers != "1" else []),
        "--dynamo_backend=no",
    ]
    surroundings = os.environ | ({} if on_gpu else {"ACCELERATE_USE_CPU": "true"})
    with (folder / LOG).open("ab") as log:
        launched = subprocess.Popen(
            [*command, "-m", "eval.engines.work", str(folder)], env=surroundings, stdout=log, stderr=log
        )
    try:
        while launched.poll() is None:
            time.sleep(SECONDS)
            yield
    finally:
        launched.terminate()
        launched.wait()


def begin_ray(engine: EngineConfig, folder: Path, names: list[str], on_gpu: bool) -> Iterator[None]:
    """Do the parts `names` with actors of Ray Data, on this machine or on the cluster at engine.address; Ray begins an
    actor that died again. Yields after each part, and stops Ray at the end.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    workers = min(engine.workers or num_devices(on_gpu), len(names))
    own: dict[str, Any] = {"num_cpus": workers} if engine.address is None else {"address": engine.address}
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # no such cluster, another version of Python or Ray
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"engine=ray: {first}", next_step="check engine.address and the cluster's versions."
        ) from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # The folder goes with each row: arguments of a constructor can be lost when an actor begins again (ray#53727).
        items = ray.data.from_items(
            [{"folder": str(folder), "part": name} for name in names], override_num_blocks=len(names)
        )
        done = items.map(
            cast(Any, PartOnRay),  # Ray makes an object of it on each worker
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if on_gpu else None,
        )
        for _ in done.iter_rows():
            yield
    finally:
        ray.shutdown()


class PartOnRay:
    """An actor of Ray Data: it loads the stage at its first part, and does part after part."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        do_named_parts(Path(row["folder"]), [row["part"]])
        return row


def begin_slurm(engine: EngineConfig, folder: Path, names: list[str], on_gpu: bool) -> Iterator[None]:
    """Do the parts `names` with an array of Slurm jobs (or processes of this machine, engine.cluster=local); job i does
    each n-th part. Yields every SECONDS until the jobs have ended.
    """
    import submitit

    workers = min(engine.workers or num_devices(on_gpu), len(names))
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=engine.cluster)
    executor.update_parameters(
        timeout_min=engine.minutes,
        **({"slurm_partition": engine.partition} if engine.partition else {}),
        **({"gpus_per_node": 1} if on_gpu else {}),
    )
    jobs = executor.map_array(do_named_parts, [folder] * workers, [names[i::workers] for i in range(workers)])
    try:
        while not all(job.done() for job in jobs):
            time.sleep(SECONDS)
            yield
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()


def num_devices(on_gpu: bool) -> int:
    """How many workers this machine has room for: one for each CUDA device, else for each core."""
    import torch

    return torch.cuda.device_count() if on_gpu else os.cpu_count() or 1
