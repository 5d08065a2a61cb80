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

# Disk full, quota, file-size limit, read-only or forbidden: the surroundings, not the program.
SURROUNDINGS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file-size limit of this process is reached",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
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


def from_os_error(error: OSError) -> SurroundingsError | None:
    """The user's message for an error of the surroundings; None if `error` is something else (then it is a bug)."""
    if error.errno not in SURROUNDINGS:
        return None
    where = f" at {error.filename}" if error.filename else ""
    return SurroundingsError(
        f"{SURROUNDINGS[error.errno]}{where}",
        next_step="make room or mend the permission, then run the same command again; finished work is kept.",
    )
