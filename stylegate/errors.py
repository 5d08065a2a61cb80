"""What can go wrong because of a person's input or the machine, as opposed to a bug.

    StylegateError          exit code 2; printed without a traceback
    ├── ConfigError         a key, a value, an option
    ├── DataError           a brand set, a folder of pictures, a plan, a policy, a traits file
    ├── ModelError          a base model, a LoRA or an encoder that does not fit
    └── SurroundingsError   full disk, no permission, no network
        └── InUseError      another stylegate is at work there

Each message says what is wrong, where, and what to do next. All problems of one config or one data set
come together: `StylegateError(summary, problems, next_step)`.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `stylegate`. Ctrl-C ends a command with 130 (128 + SIGINT), which has no name here."""

    PASS = 0
    INTERNAL = 1
    USAGE = 2
    REJECTED = 10
    REVIEW = 11
    STALE = 12  # the calibration was made for other pictures, another encoder or another policy
    EVIDENCE = 13  # too little evidence for the promise
    PREEMPTED = 143  # 128 + SIGTERM: training was stopped from outside, and has saved its state


# Of several codes the first in this order is the command's.
PRECEDENCE = (
    ExitCode.USAGE,
    ExitCode.REJECTED,
    ExitCode.INTERNAL,
    ExitCode.PREEMPTED,
    ExitCode.STALE,
    ExitCode.EVIDENCE,
    ExitCode.REVIEW,
    ExitCode.PASS,
)


def most_important_exit_code(*codes: int) -> ExitCode:
    """The code among `codes` that comes first in PRECEDENCE."""
    return next(code for code in PRECEDENCE if code in codes)


# What the operating system refuses, by error number: the cause is disk, permission or name, not the program.
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
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network file system has lost the file",
    errno.EOPNOTSUPP: "the file system cannot do this",
    errno.ETXTBSY: "the file is being run",
    errno.EMFILE: "this process has too many files open",
    errno.ENFILE: "the machine has too many files open",
}
# With the path that was refused they are of the file system; without one they may be a bug.
OF_A_PATH = {
    errno.EINVAL: "the file system does not allow this name",
    errno.EILSEQ: "the file system does not allow this name",
    errno.EXDEV: "the two names lie on different file systems",
    errno.EBUSY: "the file is in use",
}
NOT_FOR_FILES = ("/proc/", "/sys/")  # here the kernel answers ENOENT to whoever makes a file


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


class InUseError(SurroundingsError):
    """Another stylegate is at work on the same folder; it can be tried again when that has ended."""


def error_for_user(error: Exception) -> SurroundingsError | None:
    """The SurroundingsError to show for an error of the cache or for what the operating system refuses; None if `error`
    is a bug.
    """
    if isinstance(error, sqlite3.OperationalError):
        what = f"the cache cannot be used: {error}"
    elif isinstance(error, OSError) and (reason := os_error_in_words(error)):
        what = reason + (f": {error.filename}" if error.filename else "")
    else:
        return None
    step = "make room, or change the name or the permission; then run the same command again: finished work is kept."
    return SurroundingsError(what, next_step=step)


def os_error_in_words(error: OSError) -> str | None:
    """What the operating system refuses, in words; None for an error that may be a bug of stylegate."""
    if error.errno is None or error.errno in SURROUNDINGS or not error.filename:
        return SURROUNDINGS.get(error.errno or 0)
    if error.errno == errno.ENOENT and str(error.filename).startswith(NOT_FOR_FILES):
        return "no file can be made here"
    return OF_A_PATH.get(error.errno)


class AfterVerdictError(Exception):
    """A bug that showed after pictures had been rejected; its cause is the bug, the exit code the verdict's."""


@contextmanager
def keeping_exit_code_of_verdict(code: int) -> Iterator[None]:
    """A context for work that follows a verdict with exit code `code`: a bug in it must not hide a verdict that
    rejects.

    Raises AfterVerdictError for a bug after ExitCode.REJECTED; every other error as it is.
    """
    try:
        yield
    except Exception as error:
        if code != ExitCode.REJECTED or isinstance(error, StylegateError) or error_for_user(error):
            raise
        raise AfterVerdictError from error
