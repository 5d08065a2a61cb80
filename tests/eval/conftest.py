"""Words for a gate on true pictures, shared by the tests of decisions, certificates and calibrations."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stylegate import files


@pytest.fixture
def words(judged: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """Words for a policy of this text, on 32 true pictures."""

    def make(policy: str) -> list[str]:
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
