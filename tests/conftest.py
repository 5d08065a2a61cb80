"""Everything that tests make goes into one temporary home; shipped models and brands are used where they lie."""

import atexit
import os
import shutil
import sys
import tempfile

HOME = tempfile.mkdtemp(prefix="stylegate-tests-")  # set before stylegate is imported: files.HOME is read once
atexit.register(shutil.rmtree, HOME, ignore_errors=True)  # also where a process that a test starts imports this file
os.environ |= {"STYLEGATE_HOME": HOME, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
os.environ["TORCH_COMPILE_DISABLE"] = "1"  # bitsandbytes would have each of its CPU kernels built by a C++ compiler

import copy  # noqa: E402
import errno  # noqa: E402
import gc  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from functools import cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from hydra._internal.config_loader_impl import ConfigLoaderImpl  # noqa: E402
from hydra.core.config_store import ConfigStore  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from PIL import Image  # noqa: E402

from stylegate import brandset, cli, files  # noqa: E402
from stylegate.cli import main  # noqa: E402
from stylegate.config import GROUPS, config_fields_by_key  # noqa: E402
from stylegate.errors import ExitCode  # noqa: E402
from stylegate.verbs import VERBS, verb_reads_key  # noqa: E402

FAST_ALL_LAYERS = ["hardware=cpu", "train.num_samples=0", "train.batch_size=2", "generate.num_inference_steps=2"]
FAST = [
    *FAST_ALL_LAYERS,
    "lora=attention",
]  # a run takes 1.3 s instead of 2.1


composed_by_hydra = cli.compose_hydra_config


@cache
def composed_groups(*choices: str) -> Any:
    return composed_by_hydra(list(choices))


def composed_once(overrides: list[str]) -> Any:
    """As cli.compose, in 4 ms instead of 75: Hydra reads the files of the chosen groups once in a process.

    tests/stylegate/test_config.py compares the two.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    groups = [override.key_or_group in GROUPS for override in parsed]
    composed = copy.deepcopy(composed_groups(*(word for word, group in zip(overrides, groups, strict=True) if group)))
    values = [override for override, group in zip(parsed, groups, strict=True) if not group]
    ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    return composed


cli.compose_hydra_config = composed_once  # a process that a test starts composes as users do


store_in_hydra = ConfigStore.store


def store_schema_once(store: ConfigStore, name: str, *given: Any, **named: Any) -> None:
    """As Hydra's own; a command stores the schema, which takes 10 ms."""
    if name != "schema" or "schema.yaml" not in store.repo:
        store_in_hydra(store, name, *given, **named)


ConfigStore.store = store_schema_once  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """What was imported stays: 800,000 objects that the garbage collector need not look at, half a second each time."""
    gc.collect()
    gc.freeze()


MADE_BY_A_MODEL = ["source_type=trainedAlgorithmicMedia"]


def merged(*words: str) -> list[str]:
    """Words of a command in which the last of a key wins; stylegate itself refuses a key that is given twice."""
    last = {word.partition("=")[0]: number for number, word in enumerate(words)}
    return [word for number, word in enumerate(words) if "=" not in word or last[word.partition("=")[0]] == number]


@pytest.fixture(autouse=True)
def nothing_was_exported() -> Iterator[None]:
    """The gate compares with every package in data/exports/: each test begins and ends with none."""
    yield
    shutil.rmtree(files.EXPORTS, ignore_errors=True)


def words_of(verb: str, *words: str) -> list[str]:
    """The words whose keys the verb reads, each once."""
    elsewhere = {
        key for key in config_fields_by_key() if verb in VERBS and VERBS[verb].keys and not verb_reads_key(verb, key)
    }
    return merged(*(word for word in words if word.partition("=")[0] not in elsewhere))


@pytest.fixture
def run(run_exactly: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """run("gate", "images=DIR") -> exit code and everything printed.

    Keys that another verb reads and this one would refuse are left out: one list of words serves a chain of verbs. Of
    a key that is given twice the last one counts. An export is told that pictures of a folder were made by a model.
    """

    def call(*arguments: str) -> tuple[int, str]:
        given = [*MADE_BY_A_MODEL, *arguments[1:]] if arguments[:1] == ("export",) else arguments[1:]
        return run_exactly(*arguments[:1], *words_of(next(iter(arguments), ""), *given))

    return call


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Add a folder to this set, and the system refuses to list it. It is stood in for: it refuses nothing to root."""
    folders: set[Path] = set()
    for name in ("scandir", "listdir"):
        list_folder = getattr(os, name)

        def refuse(place: Any = ".", list_folder: Callable = list_folder) -> Any:
            if not isinstance(place, int) and Path(place) in folders:
                raise PermissionError(errno.EACCES, "Permission denied", str(place))
            return list_folder(place)

        monkeypatch.setattr(os, name, refuse)
    return folders


@pytest.fixture
def run_exactly(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """run_exactly("gate", "images=DIR") -> exit code and everything printed."""

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def command(*arguments: str) -> list[str]:
    """The CLI as a process of its own."""
    return [sys.executable, "-c", "from stylegate.cli import main; raise SystemExit(main())", *arguments]


def process(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=files.ROOT, capture_output=True, text=True, timeout=timeout_s)


def forks(
    *arguments: str, count: int = 1, output: Path = Path(os.devnull), before: Callable[[], object] = dict
) -> list[int]:
    """The ids of `count` forks of this process that run the command together, as a launcher's processes would.

    They have imported what this process has: one of its own imports for eight seconds. Each calls `before` first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [forked(arguments, rank, count, port, output, before) for rank in range(count)]


def forked(
    arguments: tuple[str, ...], rank: int, count: int, port: int, output: Path, before: Callable[[], object]
) -> int:
    if pid := os.fork():
        return pid
    code = ExitCode.INTERNAL
    try:
        from accelerate.state import AcceleratorState

        os.environ["ACCELERATE_USE_CPU"] = "true"
        if count > 1:
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in told.items()}
        AcceleratorState._reset_state(reset_partial_state=True)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # pytest's own would keep what is printed
        before()
        code = main(list(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="session")
def pictures_of_neon() -> list[Image.Image]:
    folder = files.ROOT / "data" / "brands" / "neon" / "train"
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


@pytest.fixture
def folder(tmp_path: Path, pictures_of_neon: list[Image.Image]) -> Path:
    """Fourteen captioned pictures, as a person would have them."""
    place = tmp_path / "my pictures, [v=1]"
    place.mkdir()
    for i, image in enumerate(pictures_of_neon[:14]):
        image.save(place / f"{i:02d}.png")
        (place / f"{i:02d}.txt").write_text(f"a creature, number {i}")
    return place


@pytest.fixture(scope="session")
def small_brand() -> Path:
    """A brand set of 20 pictures: 12 train, 2 validation, 6 test... enough for every stage, quick to check."""
    source = Path(tempfile.mkdtemp(dir=HOME)) / "small"
    source.mkdir()
    shipped = files.ROOT / "data" / "brands" / "neon"
    for item in brandset.read_brand_set(shipped).splits["train"][:26]:
        name = Path(item.file).name
        (source / name).write_bytes(item.unchanged_file_bytes())
        (source / name).with_suffix(".txt").write_text(item.text)
    assert main(["brand", "name=small", f"images={source}"]) == 0
    told = files.BRANDS[0] / "small" / "brand.yaml"
    told.write_text(told.read_text().replace("licence: unknown", "licence: CC0-1.0"))  # else nothing of it is exported
    return files.BRANDS[0] / "small"


@pytest.fixture(scope="session")
def trained(small_brand: Path) -> list[str]:
    """The words of a run that was trained for four steps."""
    words = ["brand=small", *FAST_ALL_LAYERS, "train.max_steps=4", "train.checkpoint_every=2"]
    assert main(["train", *words]) == 0
    return words


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Path]:
    """A copy of neon's test pictures, as a foreign folder."""
    place = tmp_path / "judged"
    shutil.copytree(files.ROOT / "data" / "brands" / "neon" / "validation", place)
    (place / "metadata.jsonl").unlink()
    yield place
