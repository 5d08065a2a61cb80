"""A finished or unfinished run as its directory records it, for the run's page and for `compare`.

A part that is missing leaves its field empty; a damaged one is named in `problems`. Nothing here needs a model.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylegate import files
from stylegate.errors import DataError

CLOCK = "clock.jsonl"  # step, steps, seconds of training, seconds waited for data among them, most memory_gib so far
ORIGIN = "origin.json"  # what no other file records: the prompts that are drawn, the commits that trained


@dataclass(kw_only=True, slots=True)
class RunDirectoryContents:
    """The content of the files in a run's directory; the run's page and the tables of runs are made from it."""

    directory: Path
    run: dict[str, Any] = field(default_factory=dict)  # run.json
    origin: dict[str, Any] = field(default_factory=dict)
    stats: list[dict[str, Any]] = field(default_factory=list)
    clock: list[dict[str, Any]] = field(default_factory=list)
    drawn: dict[int, Path] = field(default_factory=dict)  # step -> folder of pictures, judged or not
    results: dict[int, dict[str, Any]] = field(default_factory=dict)  # step -> result.json, of one policy and encoder
    handed_out: dict[str, Any] = field(default_factory=dict)  # result.json of the pictures of what is handed out
    chosen: dict[str, Any] = field(default_factory=dict)  # the same, else of previews at the chosen step and strength
    seconds_of: dict[int, float] = field(default_factory=dict)  # step -> seconds of evaluating, all strengths
    selection: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def config_by_dotted_key(self) -> dict[str, Any]:
        """The run's configuration as a mapping of dotted key to value; {} if run.json is missing or damaged."""
        return flat_config(self.run.get("config", {}))

    @property
    def num_steps_trained(self) -> int:
        """The last step in stats.jsonl, which is the number of steps trained; 0 if there is none."""
        return self.stats[-1]["step"] if self.stats else 0

    def training_seconds_or_none(self) -> float | None:
        """Seconds of training without the evaluations; None where not every step was timed."""
        timed = sum(row["steps"] for row in self.clock)
        return sum(row["seconds"] for row in self.clock) if timed and timed == self.num_steps_trained else None

    def evaluation_seconds(self, until: float = float("inf")) -> float:
        """The seconds that all evaluations up to the step `until`, included, took."""
        return sum(seconds for step, seconds in self.seconds_of.items() if step <= until)


def read_run_directory_contents(directory: Path) -> RunDirectoryContents:
    """Read all parts of a run's directory. Raises nothing for missing or damaged parts."""
    found = RunDirectoryContents(directory=directory)

    def add_problem(error: DataError) -> None:
        """Record a damaged part, without the path of this machine."""
        found.problems.append(str(error).replace(f"{files.display_path(directory)}/", ""))

    def read_run_file_or_empty(name: str, *keys: str) -> dict[str, Any]:
        path = directory / name
        try:
            return files.read_json(path, "a part of the run", *keys) if path.exists() else {}
        except DataError as error:
            add_problem(error)
            return {}

    def read_run_rows_or_empty(name: str, *keys: str) -> list[dict[str, Any]]:
        try:
            return files.read_jsonl(directory / name, *keys)
        except DataError as error:
            add_problem(error)
            return []

    found.run, found.origin = (
        read_run_file_or_empty("run.json", "config", "facts"),
        read_run_file_or_empty(ORIGIN, "prompts", "code"),
    )
    found.stats, found.clock = (
        read_run_rows_or_empty("stats.jsonl", "step", "loss"),
        read_run_rows_or_empty(CLOCK, "step", "steps", "seconds"),
    )
    found.selection = read_run_file_or_empty("selection.json", "step", "scale", "pass_rate")
    previews: dict[tuple[int, str], dict[str, Any]] = {}  # by step and strength; "" for strength 1
    for folder in sorted((directory / "samples").glob("step-*")):
        number, _, scale = folder.name.removeprefix("step-").partition("-scale-")
        if not number.isdecimal():
            continue
        result = read_run_file_or_empty(f"samples/{folder.name}/result.json", "step", "prompts")
        found.seconds_of[int(number)] = found.seconds_of.get(int(number), 0.0) + result.get("seconds", 0.0)
        previews[int(number), scale] = result
        if not scale:
            found.drawn[int(number)] = folder
            found.results |= {int(number): result} if result else {}
    if (number := found.selection.get("step")) is not None:
        scale = found.selection["scale"]
        final = read_run_file_or_empty("samples/handed-out/result.json", "step", "scale", "verdicts")
        if final:  # it may be of an earlier choice; its time was spent on the step that it is of
            found.seconds_of[final["step"]] = found.seconds_of.get(final["step"], 0.0) + final.get("seconds", 0.0)
        found.handed_out = final if (final.get("step"), final.get("scale")) == (number, scale) else {}
        found.chosen = found.handed_out or previews.get((number, "" if scale == 1 else f"{scale:g}"), {})
    judges = [result.get("judged_by") for result in found.results.values()]
    for step in [step for step, result in found.results.items() if result.get("judged_by") != judges[-1]]:
        found.problems.append(
            f"step {step} was drawn or judged with other settings (generate, policy, encoder) than the last: left out."
        )
        del found.results[step]
    return found


def flat_config(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one mapping of dotted key to value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
