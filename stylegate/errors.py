"""What can go wrong because of a person's input or the machine, as opposed to a bug.

    StylegateError          exit code 2; printed without a traceback
    ├── ConfigError         a key, a value, an option
    ├── DataError           a brand set, a folder of pictures, a plan, a policy, a traits file
    ├── ModelError          a base model, a LoRA or an encoder that does not fit
    └── SurroundingsError   full disk, no permission, no network

Each message says what is wrong, where, and what to do next. All problems of one config or one data set
come together: `StylegateError(summary, problems, next_step)`.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `stylegate`."""

    PASS = 0
    INTERNAL = 1
    USAGE = 2
    REJECTED = 10
    REVIEW = 11
    STALE = 12  # the calibration is of another making
    EVIDENCE = 13  # too little evidence for the promise
    PREEMPTED = 143  # 128 + SIGTERM: training was told to stop, and saved


# The first that applies.
PRECEDENCE = (
    Exit.USAGE,
    Exit.REJECTED,
    Exit.INTERNAL,
    Exit.PREEMPTED,
    Exit.STALE,
    Exit.EVIDENCE,
    Exit.REVIEW,
    Exit.PASS,
)


def worst(*codes: int) -> Exit:
    return next(code for code in PRECEDENCE if code in codes)


# Disk full, quota, file-size limit, read-only or forbidden: the surroundings, not the program.
SURROUNDINGS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file-size limit of this process is reached",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENAMETOOLONG: "a name is too long",
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.EISDIR: "a folder stands where a file should be",
    errno.ELOOP: "links lead in a circle",
}


class StylegateError(Exception):
    """A problem that the user can mend. `problems` are listed one a line under the summary."""

    def __init__(self, summary: str, problems: list[str] | None = None, next_step: str = ""):
        super().__init__(summary)
        self.summary = summary
        self.problems = problems or []
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.summary, *(f"  - {problem}" for problem in self.problems)]
        return "\n".join([*lines, f"Next: {self.next_step}"] if self.next_step else lines)


class ConfigError(StylegateError):
    pass


class DataError(StylegateError):
    pass


class ModelError(StylegateError):
    pass


class SurroundingsError(StylegateError):
    pass


def from_surroundings(error: Exception) -> SurroundingsError | None:
    """The user's message for an error of the surroundings; None if `error` is something else (then it is a bug)."""
    if isinstance(error, sqlite3.OperationalError):
        what = f"the cache cannot be used: {error}"
    elif isinstance(error, OSError) and error.errno in SURROUNDINGS:
        what = SURROUNDINGS[error.errno] + (f": {error.filename}" if error.filename else "")
    else:
        return None
    return SurroundingsError(
        what, next_step="make room or mend name or permission, then run the same command again; finished work is kept."
    )


class AfterVerdictError(Exception):
    """A bug that showed after pictures had been rejected; its cause is the bug, the exit code the verdict's."""


@contextmanager
def after_verdict(code: int) -> Iterator[None]:
    """What still happens after a verdict: a bug in it must not hide that the verdict was a failure."""
    try:
        yield
    except Exception as error:
        if code != Exit.REJECTED or isinstance(error, StylegateError) or from_surroundings(error):
            raise
        raise AfterVerdictError from error
