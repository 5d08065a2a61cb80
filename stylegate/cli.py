"""The `stylegate` command: verbs, help, exit codes. Every error of a user's making is one message and exit code 2."""

import atexit
import difflib
import gc
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stylegate import config as configuration
from stylegate import configcheck
from stylegate.errors import (
    AfterVerdictError,
    ConfigError,
    ExitCode,
    StylegateError,
    error_for_user,
    most_important_exit_code,
)
from stylegate.files import RUNS
from stylegate.verbs import VERBS, help_overview, unread_key_problem, verb_help

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Pydantic would look through all installed packages for plugins: a fiftieth of the time of a gate that finds scores.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# libgomp, which torch on Linux computes with, lets a thread that waits for another one spin 300,000 times. On cores
# that other programs use too, training then takes twice as long and more (tests/bench/busycores.py). It is read as
# torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# peft imports bitsandbytes, which warns on some processors that it lacks a faster kernel for 4 bits. Errors stay.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def main(argv: list[str] | None = None) -> int:
    """Run the verb that the arguments name, `argv` or those of the process. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_overview())
        return ExitCode.PASS
    verb, rest = arguments[0], arguments[1:]
    if argv is None and verb == "gate":
        collect_garbage_seldom()
    try:
        if verb not in VERBS:
            near = " or ".join(difflib.get_close_matches(verb, VERBS, n=2, cutoff=0.7))
            raise ConfigError(
                f"unknown command {verb!r}",
                next_step=f"{f'did you mean {near}? ' if near else ''}one of {', '.join(VERBS)}; stylegate --help",
            )
        if "-h" in rest or "--help" in rest:
            print(verb_help(verb))
            return ExitCode.PASS
        if verb == "verify":
            from eval.verify import verify

            return verify(rest)
        if verb == "marks":
            from eval.marks import marks

            return marks(rest)
        if verb == "signals":
            from eval.signals import signals

            return signals(rest)
        if verb == "rebase":
            from eval.rebase import rebase

            return rebase(rest)
        if verb == "inspect":
            from stylegate.inspection import inspect

            return inspect([Path(p) for p in rest])
        if verb == "convert":
            from stylegate.convert import convert

            return convert(rest)
        if verb == "replay":
            from stylegate.lineage import print_lineage_and_send_missing

            return print_lineage_and_send_missing([Path(p) for p in rest])
        if verb == "compare":
            return compare_runs_or_batches([Path(p) for p in rest])
        if verb == "demo":
            verb, rest = "run", ["experiment=demo", *rest]
        return compose_and_run(verb, rest)
    except BrokenPipeError:  # who reads our output has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print_error("stopped.\nNext: the same command goes on where this one was.")
        return 130
    except Exception as error:
        return report_error(error)


def report_error(error: Exception) -> int:
    """Print one message for what a person can mend, a traceback for a bug. Returns the exit code."""
    mended = error if isinstance(error, StylegateError) else error_for_user(error)
    if isinstance(mended, StylegateError):
        if not (isinstance(mended, ConfigError) and process_rank() > 0):  # every process reads the same arguments
            print_error(f"error: {mended}")
        if process_rank() == 0 and any(name in os.environ for name in LAUNCHERS):
            print_error(
                "The error above is stylegate's whole report; what the launcher prints below adds nothing to it."
            )
        write_launcher_error_file(f"error: {mended}")
        return ExitCode.USAGE
    traceback.print_exception(error)
    print_error("internal error: this is a bug in stylegate; nothing that was finished is lost.")
    print_error("Next: run the same command again; if it ends here again, report the lines above.")
    return ExitCode.REJECTED if isinstance(error, AfterVerdictError) else ExitCode.INTERNAL


# Set by torch's launcher and by `accelerate launch`, which end with a traceback of their own when a process fails.
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")


def write_launcher_error_file(message: str) -> None:
    """Write the error where torch's launcher of several processes looks for it: its last lines then show it."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(path).write_text(json.dumps({"message": f"\n{message}", "timestamp": int(time.time())}))


def process_rank() -> int:
    """The number of this process among those that were launched together; 0 for the first, or for the only one."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0


def print_error(message: str) -> None:
    """Print to stderr: the whole message in the first process, its first line in others, which may be alone with it."""
    print(message if process_rank() == 0 else f"rank {process_rank()}: {message.splitlines()[0]}", file=sys.stderr)


def compose_and_run(verb: str, arguments: list[str]) -> int:
    """Compose the configuration from conf/ and the overrides, check all of it, run the verb. Returns the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    sweep = "-m" in arguments or "--multirun" in arguments
    flags = [a for a in arguments if a.startswith("-")]
    flags += [arguments[i + 1] for i, a in enumerate(arguments[:-1]) if a in ("--cfg", "-c", "--package", "-p")]
    overrides, problems = valid_overrides_and_problems(
        verb, [quote_text_value(a, sweep) for a in arguments if a not in flags], sweep
    )
    ConfigStore.instance().store(name="schema", node=configuration.Config)
    try:
        if flags:
            if problems:
                raise configcheck.config_error_listing_problems(problems, verb)
            return print_config_or_run_sweep(verb, flags, overrides)
        settings = [text for text in overrides if text.startswith(("hydra.", "hydra/"))]
        problems += [f"{text}: a setting of Hydra's own, which --multirun alone reads" for text in settings]
        config = configcheck.checked_config(
            compose_hydra_config([o for o in overrides if o not in settings]), problems, verb
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be read: {str(error).splitlines()[0]}", problems) from None
    return run_verb(verb, config_completed_from_batch(verb, config, overrides))


def config_completed_from_batch(verb: str, config: configuration.Config, overrides: list[str]) -> configuration.Config:
    """The config of plan, generate and trial with what the batch of `batch=` says of keys that the overrides do not
    give; that of export with the batch's name for the collection where only a file of experiment= gives a name; that of
    every other verb unchanged. Raises ConfigError, and DataError for a damaged batch.
    """
    typed = {text.partition("=")[0].lstrip("+") for text in overrides}
    if verb == "export" and config.batch and config.name and "name" not in typed:
        return replace(config, name=config.batch)  # else a collection of one's own would be published as the demo
    if not config.batch or verb not in ("plan", "generate", "trial"):
        return config
    from eval.lot import again

    return again.config_with_arguments_of_batch(config, typed)


def compose_hydra_config(overrides: list[str]) -> "DictConfig":
    """The configuration of conf/ and the overrides. Raises HydraException or OmegaConfBaseException."""
    import hydra

    with without_garbage_collection(), hydra.initialize_config_dir(str(configuration.CONF), version_base="1.3"):
        return hydra.compose("config", overrides=overrides)


def valid_overrides_and_problems(verb: str, overrides: list[str], sweep: bool) -> tuple[list[str], list[str]]:
    """The overrides that have no problem, and for each of the others a message that names its key."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    parser, schema = OverridesParser.create(), OmegaConf.structured(configuration.Config)
    good: dict[str, str] = {}  # by key
    problems: list[str] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(configuration.spell_import_file_as_import(f"{text}: not of the form key=value"))
            continue
        name = override.key_or_group
        hydras = name.startswith(("hydra.", "hydra/"))
        if name in good:
            problem = f"{name}: given twice, {good[name]} and {text}"
        elif override.is_sweep_override() and not sweep:
            problem = f"{text}: several values need --multirun, which runs the verb once with each"
        else:
            problem = (
                None if hydras else configcheck.override_problem(override, schema) or unread_key_problem(verb, name)
            )
        if problem:
            problems.append(configuration.spell_import_file_as_import(problem))
        else:
            good[name] = text
    return list(good.values()), problems


def print_config_or_run_sweep(verb: str, flags: list[str], overrides: list[str]) -> int:
    """Let Hydra print the configuration (--cfg job), or run a sweep (--multirun); one of train ends with the table of
    `compare`. Returns the worst exit code of the jobs.
    """
    import hydra

    codes: list[int] = []
    errors: list[Exception] = []
    away = any(a.startswith("hydra/launcher=") and not a.endswith("=basic") for a in overrides)

    def run_one_job(cfg) -> None:
        """Run one job of a sweep, and keep its exit code or its error.

        With another launcher than the basic one it runs in a process that can only answer by raising.
        """
        if ExitCode.PREEMPTED in codes:  # a sweep that was told to stop starts no further job
            return
        try:
            config = config_completed_from_batch(verb, configcheck.checked_config(cfg, [], verb), overrides)
            codes.append(run_verb(verb, config))
            if away and codes[-1] != ExitCode.PASS:
                raise ConfigError(f"a job ended with exit code {codes[-1]}")
        except Exception as error:  # raised below: Hydra would print its own words above ours
            if away:
                raise
            errors.append(error)

    sys.argv = [f"stylegate {verb}", *flags, *overrides]
    hydra.main(version_base="1.3", config_path=str(configuration.CONF), config_name="config")(run_one_job)()
    if errors:
        raise errors[0]
    sweep = "-m" in flags or "--multirun" in flags
    if sweep and verb == "train" and process_rank() == 0:
        from stylegate.rundirectory import run_directory_name
        from train.compare import compare

        runs = [RUNS / run_directory_name(config) for config in sweep_configs(overrides)]
        if there := [run for run in dict.fromkeys(runs) if run.is_dir()]:
            compare(there)
    return most_important_exit_code(ExitCode.PASS, *codes)


def sweep_configs(overrides: list[str]) -> list[configuration.Config]:
    """The configuration of each job of a sweep, in the order of the jobs."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([a for a in overrides if not a.startswith("hydra")])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [configcheck.checked_config(compose_hydra_config(list(job)), []) for job in jobs]


def quote_text_value(override: str, sweep: bool = False) -> str:
    """The override with a text value quoted for Hydra's grammar: the text is then used as it is written. `import=`
    becomes `import_file=`.

    Spaces, commas, brackets and = are ordinary characters, and 1e3 or true stay text. In a sweep commas separate
    values, and a value with brackets, quotes or = is left to Hydra (choice(a,b), range(1,3)).
    """
    name, equals, value = override.partition("=")
    name = name + "_file" * (name.lstrip("+") == "import")  # a field of Python cannot be called import
    override = name + equals + value
    if not equals or not configcheck.is_text_valued_config_key(name.lstrip("+")) or value in ("", "null"):
        return override
    if sweep and re.search(r"[()\[\]{}'\"\\$=]", value):
        return override
    values = value.split(",") if sweep else [value]
    return f"{name}={','.join(v if v in ('', 'null') else single_quoted_for_hydra(v) for v in values)}"


def single_quoted_for_hydra(value: str) -> str:
    """Text in single quotes, as Hydra's grammar reads it: there a backslash counts only before a quote or the end.

    ${...} is escaped too, since OmegaConf would resolve it; it reads two backslashes before it as one.
    """
    plain = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value)
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), plain)
    return f"'{escaped}'"


def collect_garbage_seldom() -> None:
    """Let Python collect garbage seldom, and not at the end of the process.

    A gate makes a few objects for each picture and keeps them; collections that find nothing to free took a third of
    its time where it had nothing to score.
    """
    gc.set_threshold(200_000)  # objects that were made since; 700 by default
    atexit.register(skip_final_garbage_collection)


def skip_final_garbage_collection() -> None:
    """Skip the collection at the end of the process, unless torch was imported: its libraries warn of what is left."""
    if "torch" not in sys.modules:
        gc.freeze()


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """A context without garbage collection. Imports make many objects that stay, and collecting takes a tenth more."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def compare_runs_or_batches(places: list[Path]) -> int:
    """Put runs side by side; or two batches, if both folders are batches. Returns the exit code."""
    if len(places) == 2 and all((place / "batch.json").is_file() for place in places):
        from eval.compare import compare_batches

        return compare_batches(*places)
    from train.compare import compare

    return compare(places)


def run_verb(verb: str, config: configuration.Config) -> int:
    """Run one verb with a checked configuration. Returns its exit code."""
    with without_garbage_collection():
        run = import_verb_function("watch" if verb == "gate" and config.watch and not config.explain else verb)
    return run(config)


def import_verb_function(verb: str) -> Callable[[configuration.Config], int]:
    """The verb's function. Its module is imported only now: --help, --cfg and config errors never wait for torch."""
    run: Callable[[configuration.Config], int]
    match verb:
        case "brand":
            from stylegate.brand import make_brand_set as run
        case "caption":
            from stylegate.caption import caption_pictures as run
        case "check":
            from eval.check import check as run
        case "train":
            from train.loop import train as run
        case "plan":
            from eval.plan import plan as run
        case "generate":
            from eval.generate import generate as run
        case "trial":
            from eval.trial import trial as run
        case "score":
            from eval.score import score as run
        case "encoders":
            from eval.encoders import encoders as run
        case "gate":
            from eval.gate import gate as run
        case "watch":  # gate watch=true
            from eval.watch import watch as run
        case "review":
            from eval.review import review as run
        case "learn":
            from eval.learn import learn as run
        case "preferences":
            from eval.preferences import preferences as run
        case "dashboard":
            from stylegate.dashboards import save_wandb_workspace as run
        case "calibrate":
            from eval.calibrate import calibrate as run
        case "certify":
            from eval.certify import certify as run
        case "export":
            from eval.export import export as run
        case "run":
            from train.experiment import run_experiment as run
        case _:
            raise AssertionError(verb)
    return run
