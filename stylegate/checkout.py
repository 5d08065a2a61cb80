"""What the checkout is at: the commit of the code that runs."""

import subprocess
from pathlib import Path

from stylegate import files

GIT_S = 20


def git_commit_and_clean_flag(root: Path = files.ROOT) -> dict[str, str | bool | None]:
    """`commit`, its hash, and `clean`, whether the checkout has no changes other than ignored files; None for what is
    unknown.
    """

    def git_output(*words: str) -> str | None:
        try:
            told = ["git", "--no-optional-locks", "-C", str(root), *words]
            done = subprocess.run(told, capture_output=True, text=True, timeout=GIT_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    name = git_output("rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = git_output("status", "--porcelain") if name else None
    return {"commit": name, "clean": None if changed is None else not changed}
