"""Run a stage over many rows with the configured engine; the results are the same bytes with each of them.

    stylegate score images=DIR references=DIR engine=accelerate engine.workers=8
    stylegate score images=DIR references=DIR engine=ray engine.address=10.0.0.5:6379
    stylegate generate brand=acme traits=acme.yaml engine=slurm engine.partition=gpu engine.workers=40

All do the same: the rows are written as parts to a place that all workers see (eval/engines/parts.py), workers do the
parts, and this process takes each result as it appears. Which worker does what is the engine's affair.
"""

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from eval.engines import parts
from eval.engines.place import FolderPlace, ObjectStorePlace, Place, uri_below
from eval.engines.work import run_named_parts
from stylegate import files
from stylegate.configgroups import EngineConfig
from stylegate.errors import ConfigError, StylegateError, SurroundingsError

SECONDS = 0.3  # between two looks at processes
LOG = "workers.log"  # what processes of accelerate print
FUTILE = 3  # times that all workers end before any began a part, until this is an error


Taken = Callable[[dict[str, parts.Row], list[str]], None]  # what became of rows by id; ids that killed their workers


class EngineWork:
    """The work of one stage that an engine does: a place for its parts, and a folder of this home for its logs."""

    def __init__(self, engine: EngineConfig, settings: Mapping[str, Any], of: Path) -> None:
        """`settings` name the stage and all that it needs, as JSON; `of` is the folder that the work is for.

        Raises ConfigError if the engine is not installed.
        """
        require_engine_installed(engine.name)
        self.engine, self.settings = engine, dict(settings)
        self.folder = files.CACHE / "engine" / files.canonical_sha256([self.settings, str(of)])[:16]

    @contextmanager
    def locked_against_other_commands(self) -> Iterator[None]:
        """A context that locks the work against other commands; at its end the parts and logs are removed, but not
        after an error.

        Raises InUseError if another one does it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with files.exclusive_lock(self.folder):
            self.place = self._place_for_parts()
            yield
            try:
                self.place.remove_all_files()
            except StylegateError as error:
                print(f"note: {error.summary}")
            FolderPlace(self.folder).remove_all_files()

    def _place_for_parts(self) -> Place:
        """The folder, or a prefix of its own in engine.store, which another start finds again."""
        if not self.engine.store:
            return FolderPlace(self.folder / "parts")
        note = self.folder / "prefix"
        if not note.exists():
            files.write_atomically(note, uuid.uuid4().hex)
        return ObjectStorePlace(uri_below(self.engine.store, note.read_text()))

    def hand_over_results_of_earlier_start(self, take: Taken) -> None:
        """Call `take` with each result that workers finished for an earlier start that was stopped, and remove the
        result.
        """
        for name in sorted(parts.names_of_finished_parts(self.place)):
            take(*parts.read_part_result(self.place, name))
            self.place.write_or_remove_file(f"{name}.safetensors", b"")

    def do_rows_in_parts(self, rows: Sequence[dict[str, Any]], size: int, take: Taken, on_gpu: bool) -> None:
        """Divide `rows` into parts of `size` rows and have the engine's workers do them. For each part, as soon as its
        result is there, `take` is called once with the results by row id and the ids of rows that killed their worker.

        Raises DataError for what a worker could not do, SurroundingsError if workers end without an error and without
        progress.
        """
        place, engine = self.place, self.engine
        names = parts.write_rows_to_do_in_parts(place, self.settings, rows, size)
        begin = {"accelerate": run_on_accelerate, "ray": run_on_ray, "slurm": run_on_slurm}[engine.name]
        left, futile = dict.fromkeys(names), 0

        def take_new_results() -> None:
            finished = parts.names_of_finished_parts(place)
            for name in [name for name in left if name in finished]:
                take(*parts.read_part_result(place, name))
                del left[name]

        take_new_results()
        while left:
            before, said, looked = (len(left), parts.number_of_worker_deaths(place)), "", time.monotonic()
            try:
                for _ in begin(
                    engine, self.folder, str(place), list(left), on_gpu
                ):  # ends when no worker runs any more
                    if time.monotonic() - looked > place.seconds:
                        take_new_results()
                        looked = time.monotonic()
            except UnreportedWorkerError as error:
                said = f": {error}"
            take_new_results()
            parts.raise_error_of_workers(place)
            futile = futile + 1 if (len(left), parts.number_of_worker_deaths(place)) == before else 0
            if futile == FUTILE:
                raise SurroundingsError(
                    f"engine={engine.name}: its workers ended and did nothing{said}",
                    next_step=f"read {self.folder / LOG} or {self.folder / 'jobs'}; then the same command again.",
                )


class UnreportedWorkerError(Exception):
    """Workers ended with an error that they could not write down, as where the disk is full."""


def require_engine_installed(engine: str) -> None:
    """Raises ConfigError if the engine's package is missing."""
    package = {"ray": "ray", "slurm": "submitit", "accelerate": "accelerate"}[engine]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"engine={engine} needs the package {package}",
            next_step=f"pip install 'stylegate[{engine}]', "
            f"in a checkout pip install -c constraints.txt -e '.[{engine}]'.",
        )


def require_ray_cluster_answers(address: str) -> None:
    """Raises ConfigError if nothing answers at HOST:PORT within 5 seconds: Ray 2.60 would try for some 14 minutes.
    Other addresses, such as "auto", are Ray's to find.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"engine.address={address}: nothing answers there ({error})",
            next_step="begin a cluster there (ray start --head), or leave engine.address out: Ray on this machine.",
        ) from None


def run_on_accelerate(engine: EngineConfig, folder: Path, place: str, names: list[str], on_gpu: bool) -> Iterator[None]:
    """Do the parts `names` with processes on this machine, which `accelerate launch` begins; if one dies it ends all of
    them. Yields every SECONDS until they have ended.
    """
    workers = str(min(engine.workers or default_num_workers(on_gpu), len(names)))
    # --cpu would silently begin one process (accelerate 1.15; findings/accelerate_two_cpu_processes_are_one.sh).
    words = ["--multi_gpu", "--num_processes", workers, "--num_machines", "1", "--mixed_precision", "no"]
    words += ["--main_process_port", "0"]  # a free one: two commands may share the machine
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
            [*command, "-m", "eval.engines.work", place], env=surroundings, stdout=log, stderr=log
        )
    try:
        while launched.poll() is None:
            time.sleep(SECONDS)
            yield
    finally:
        launched.terminate()
        launched.wait()


def run_on_ray(engine: EngineConfig, folder: Path, place: str, names: list[str], on_gpu: bool) -> Iterator[None]:
    """Do the parts `names` with actors of Ray Data, on this machine or on the cluster at engine.address; Ray begins an
    actor that died again. Yields after each part, and stops Ray at the end.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else lines for Ray's developers stand between ours
    if engine.address:
        require_ray_cluster_answers(engine.address)
    import ray
    import ray.data
    from ray.exceptions import RayError

    workers = min(engine.workers or default_num_workers(on_gpu), len(names))
    # "local": without it Ray looks for a cluster by itself, and for one that died too (/tmp/ray/ray_current_cluster).
    own: dict[str, Any] = {"address": engine.address} if engine.address else {"address": "local", "num_cpus": workers}
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # no such cluster, another version of Python or Ray
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"engine=ray engine.address={engine.address}: Ray does not begin:",
            said or [type(error).__name__],
            "leave engine.address out for a Ray on this machine; a cluster needs this Python, this Ray and its token, "
            "~/.ray/auth_token.",
        ) from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # The place goes with each row: arguments of a constructor can be lost when an actor begins again (ray#53727).
        items = ray.data.from_items([{"place": place, "part": name} for name in names], override_num_blocks=len(names))
        done = items.map(
            cast(Any, RayPartWorker),  # Ray makes an object of it on each worker
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if on_gpu else None,
        )
        for _ in done.iter_rows():
            yield
    except RayError as error:
        raise UnreportedWorkerError(str(error).strip().splitlines()[-1]) from error
    finally:
        ray.shutdown()


class RayPartWorker:
    """An actor of Ray Data: loads the stage at its first part, and does part after part."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        run_named_parts(row["place"], [row["part"]])
        return row


def run_on_slurm(engine: EngineConfig, folder: Path, place: str, names: list[str], on_gpu: bool) -> Iterator[None]:
    """Do the parts `names` with an array of Slurm jobs (or processes of this machine, engine.cluster=local); job i does
    each n-th part. Yields every SECONDS until the jobs have ended.
    """
    import submitit

    workers = min(engine.workers or default_num_workers(on_gpu), len(names))
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=engine.cluster)
    executor.update_parameters(
        timeout_min=engine.minutes,
        **({"slurm_partition": engine.partition} if engine.partition else {}),
        **({"gpus_per_node": 1} if on_gpu else {}),
    )
    jobs = executor.map_array(run_named_parts, [place] * workers, [names[i::workers] for i in range(workers)])
    try:
        while not all(job.done() for job in jobs):
            time.sleep(SECONDS)
            yield
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()


def default_num_workers(on_gpu: bool) -> int:
    """The number of workers where engine.workers gives none: this machine's CUDA devices with `on_gpu`, else its cores.

    Raises ConfigError where the workers need CUDA devices and this machine has none to count.
    """
    import torch

    found = torch.cuda.device_count() if on_gpu else os.cpu_count() or 1
    if not found:
        raise ConfigError(
            "engine.workers is not given, and this machine has no CUDA device that could be counted",
            next_step="give engine.workers=N.",
        )
    return found
