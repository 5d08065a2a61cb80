"""Words for a gate on true pictures, shared by the tests of decisions, certificates and calibrations."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stylegate import files
from stylegate.cli import main

NEON = files.ROOT / "data" / "brands" / "neon"


@pytest.fixture(scope="session")
def scored() -> Path:
    """The three files of scores of neon's validation pictures beside its references, as `stylegate score` makes them.

    Where a picture or a reference is another one, the gate sees it and computes all of them again.
    """
    place = Path(tempfile.mkdtemp(dir=files.HOME))
    shutil.copytree(NEON / "validation", place / "pictures", ignore=shutil.ignore_patterns("*.jsonl"))
    assert main(["score", f"images={place / 'pictures'}", "references=neon", f"out={place / 'out'}"]) == 0
    return place / "out"


@pytest.fixture
def words(judged: Path, scored: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """Words for a policy of this text, on 32 true pictures that are scored."""

    def make(policy: str) -> list[str]:
        if not (tmp_path / "out").exists():
            shutil.copytree(scored, tmp_path / "out")
        (tmp_path / "policy.yaml").write_text(policy)
        return [f"images={judged}", "references=neon", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'policy.yaml'}"]

    return make


@pytest.fixture
def before_the_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """before_the_lock(act): `act` happens once, right before the next command gets its first lock.

    It stands for a command of another process that ended at that moment.
    """
    acquire = files.exclusive_lock

    def arm(act: Callable[[], object]) -> None:
        @contextlib.contextmanager
        def late(target: Path) -> Iterator[None]:
            monkeypatch.setattr(files, "exclusive_lock", acquire)
            act()
            with acquire(target):
                yield

        monkeypatch.setattr(files, "exclusive_lock", late)

    return arm
