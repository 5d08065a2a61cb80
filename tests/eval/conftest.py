"""Words for a gate on true pictures, shared by the tests of decisions, certificates and calibrations."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def words(judged: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """Words for a policy of this text, on 32 true pictures."""

    def make(policy: str) -> list[str]:
        (tmp_path / "policy.yaml").write_text(policy)
        return [f"images={judged}", "references=neon", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'policy.yaml'}"]

    return make
