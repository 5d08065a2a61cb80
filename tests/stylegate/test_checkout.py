"""The commit of the code, and whether it was clean."""

import subprocess
from pathlib import Path

import pytest

from stylegate import checkout

UNKNOWN = {"commit": None, "clean": None}


def test_the_commit_and_whether_it_was_clean(tmp_path: Path) -> None:
    assert checkout.git_commit_and_clean_flag(tmp_path) == UNKNOWN
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a.py").write_text("1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert checkout.git_commit_and_clean_flag(tmp_path) == {"commit": told, "clean": True}
    (tmp_path / "a.py").write_text("2")
    assert checkout.git_commit_and_clean_flag(tmp_path) == {"commit": told, "clean": False}


def test_no_git_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout.git_commit_and_clean_flag() == UNKNOWN
