"""The `stylegate` command: verbs, help, exit codes. Every error of a user's making is one message and exit code 2."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stylegate import config as configuration
from stylegate.errors import AfterVerdictError, ConfigError, Exit, StylegateError, from_surroundings, worst
from stylegate.files import RUNS


class Verb(NamedTuple):
    does: str
    example: str
    keys: str  # the keys or parts of the config that the verb reads


VERBS = {
    "brand": Verb("make a brand set from a folder of pictures", "name=acme images=~/acme-art", "name images out"),
    "check": Verb("report everything wrong with a brand set at once", "brand=acme", "brand base family"),
    "train": Verb(
        "fine-tune a LoRA on a brand set",
        "brand=neon",
        "brand name base accept_licence lora train generate encoder policy family hardware tracker dry_run",
    ),
    "plan": Verb(
        "lay out a batch: slots, traits, prompts, seeds",
        "brand=neon traits=collectible",
        "brand name batch traits prompts base family plan show",
    ),
    "generate": Verb(
        "draw the slots of a plan that are open",
        "brand=neon traits=collectible",
        "brand name batch traits prompts base family lora_file plan generate hardware",
    ),
    "score": Verb(
        "measure any folder of pictures, or a batch",
        "images=DIR references=DIR",
        "images batch brand name traits prompts references encoder out score hardware",
    ),
    "gate": Verb(
        "accept, review or reject each picture",
        "images=DIR references=DIR",
        "images batch brand name traits prompts base family plan references encoder policy out decisions calibration "
        "explain observe score hardware tracker",
    ),
    "calibrate": Verb(
        "let labels of a random sample choose a policy's line",
        "batch=NAME policy=FILE",
        "images batch brand name traits prompts base family plan references encoder policy out decisions promise score",
    ),
    "certify": Verb(
        "audit what was accepted until the promise is proven",
        "batch=NAME",
        "images batch brand name traits prompts base family plan references encoder policy out decisions calibration "
        "promise score",
    ),
    "export": Verb(
        "package what was accepted, with provenance",
        "batch=NAME",
        "images batch brand name traits prompts base family plan out",
    ),
    "run": Verb(
        "one experiment: train, plan, generate, score, gate, export, report",
        "experiment=demo",
        "experiment name brand traits prompts base accept_licence family lora train plan generate encoder references "
        "policy calibration score hardware tracker",
    ),
    "demo": Verb("the same as run experiment=demo", "", ""),
    "compare": Verb("put runs side by side", "checkpoints/neon-*", ""),
    "dashboard": Verb("make the W&B workspace of a project", "tracker.project=acme", "tracker"),
    "replay": Verb("tell W&B what made what, after offline runs", "checkpoints/demo-* data/batches/demo-*", ""),
    "inspect": Verb("say what a LoRA file is, and who would ignore what", "checkpoints/*/lora/*.safetensors", ""),
    "verify": Verb("check a package or a certificate: bytes, counts, proof", "data/exports/demo-v1", ""),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return Exit.PASS
    verb, rest = arguments[0], arguments[1:]
    try:
        if verb not in VERBS:
            raise ConfigError(f"unknown verb {verb!r}", next_step=f"one of {', '.join(VERBS)}; stylegate --help")
        if "-h" in rest or "--help" in rest:
            print(verb_help(verb))
            return Exit.PASS
        if verb == "verify":
            from eval.batch.verify import verify

            return verify([Path(p) for p in rest])
        if verb == "inspect":
            from stylegate.inspection import inspect

            return inspect([Path(p) for p in rest])
        if verb == "replay":
            from stylegate.lineage import replay

            return replay([Path(p) for p in rest])
        if verb == "compare":
            from train.compare import compare

            return compare([Path(p) for p in rest])
        if verb == "demo":
            verb, rest = "run", ["experiment=demo", *rest]
        return with_config(verb, rest)
    except BrokenPipeError:  # who reads our output has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        say_error("stopped. The same command goes on where this one was.")
        return 130
    except Exception as error:
        return report(error)


def report(error: Exception) -> int:
    """Print one message for what a person can mend, a traceback for a bug; the exit code."""
    mended = error if isinstance(error, StylegateError) else from_surroundings(error)
    if isinstance(mended, StylegateError):
        say_error(f"error: {mended}")
        return Exit.USAGE
    traceback.print_exception(error)
    say_error("internal error: this is a bug in stylegate; nothing that was finished is lost.")
    return Exit.REJECTED if isinstance(error, AfterVerdictError) else Exit.INTERNAL


def say_error(message: str) -> None:
    """On every rank, since one alone may have met it; of those after the first a line is enough."""
    rank = os.environ.get("RANK", "0")
    print(message if rank == "0" else f"rank {rank}: {message.splitlines()[0]}", file=sys.stderr)


def with_config(verb: str, arguments: list[str]) -> int:
    """Compose the config from conf/ and the overrides, check it whole, run the verb."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    sweep = "-m" in arguments or "--multirun" in arguments
    flags = [a for a in arguments if a.startswith("-")]
    flags += [arguments[i + 1] for i, a in enumerate(arguments[:-1]) if a in ("--cfg", "-c", "--package", "-p")]
    schema = OmegaConf.structured(configuration.Config)
    overrides = [a if sweep else quoted(a) for a in arguments if a not in flags]
    found = {a: configuration.override_problem(a, schema) for a in overrides}
    problems = [problem for problem in found.values() if problem]
    if problems:
        flags = []
    ConfigStore.instance().store(name="schema", node=configuration.Config)
    codes: list[int] = []
    errors: list[Exception] = []
    away = any(a.startswith("hydra/launcher=") and not a.endswith("=basic") for a in overrides)

    def task(cfg) -> None:
        """One job; `away` it runs in a process of its own, where only an exception is heard of.

        Who is told to stop begins no further job.
        """
        if Exit.PREEMPTED in codes:
            return
        try:
            codes.append(run_verb(verb, configuration.typed(cfg, problems)))
            if away and codes[-1] != Exit.PASS:
                raise ConfigError(f"a job ended with exit code {codes[-1]}")
        except Exception as error:  # raised below: Hydra would print its own words above ours
            if away:
                raise
            errors.append(error)

    sys.argv = [f"stylegate {verb}", *flags, *(a for a in overrides if not found[a])]
    try:
        hydra.main(version_base="1.3", config_path=str(configuration.CONF), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be read: {str(error).splitlines()[0]}", problems) from None
    if errors:
        raise errors[0]
    if sweep and verb == "train" and os.environ.get("RANK", "0") == "0":
        from train.compare import compare

        runs = [RUNS / configuration.run_directory_name(config) for config in swept(overrides)]
        if there := [run for run in dict.fromkeys(runs) if run.is_dir()]:
            compare(there)
    return worst(Exit.PASS, *codes)


def swept(overrides: list[str]) -> list[configuration.Config]:
    """The configs of a sweep, in the order of its jobs."""
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([a for a in overrides if not a.startswith("hydra")])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    with initialize_config_dir(str(configuration.CONF), version_base="1.3"):
        return [configuration.typed(compose("config", overrides=list(job)), []) for job in jobs]


def quoted(override: str) -> str:
    """Quote a path value for Hydra's grammar, so that spaces, commas, brackets and = are ordinary characters."""
    name, equals, value = override.partition("=")
    if not equals or name.lstrip("+") not in configuration.PATH_KEYS or value in ("", "null"):
        return override
    if name.endswith("lora_file") and value == "none":
        return override
    # Hydra's grammar: a backslash counts only before a quote or the end; OmegaConf would resolve ${...}.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value).replace("${", "\\${")
    return f"{name}='{escaped}'"


def run_verb(verb: str, config: configuration.Config) -> int:
    """Import the verb's module only now: --help, --cfg and config errors never wait for torch."""
    run: Callable[[configuration.Config], int]
    match verb:
        case "brand":
            from stylegate.brand import make as run
        case "check":
            from stylegate.brandset import check as run
        case "train":
            from train.loop import train as run
        case "plan":
            from eval.batch.plan import plan as run
        case "generate":
            from eval.batch.generate import generate as run
        case "score":
            from eval.score import score as run
        case "gate":
            from eval.gate import gate as run
        case "dashboard":
            from stylegate.dashboards import create as run
        case "calibrate":
            from eval.promise.calibrate import calibrate as run
        case "certify":
            from eval.promise.certify import certify as run
        case "export":
            from eval.batch.export import export as run
        case "run":
            from train.experiment import experiment as run
        case _:
            raise AssertionError(verb)
    return run(config)


def overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.does}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "stylegate: train brand-style LoRAs; let nothing leave the house that does not hold the style.",
            "",
            "usage: stylegate VERB key=value ...        stylegate VERB --help        stylegate VERB --cfg job",
            "",
            *lines,
            "",
            "exit codes: 0 pass, 2 bad input, 10 rejected by the policy, 11 review pending, 12 calibration stale,",
            "13 too little evidence for the promise, 1 internal error,",
            "143 told to stop in training (SIGTERM), 130 stopped (Ctrl-C): the same command goes on",
        ]
    )


def verb_help(verb: str) -> str:
    """The verb's purpose, an example, and its keys with default and meaning."""
    entry = VERBS[verb]
    lines = [f"stylegate {verb}: {entry.does}", "", f"example: stylegate {verb} {entry.example}".rstrip(), ""]
    wanted = entry.keys.split()
    defaults = configuration.as_dict(configuration.Config())
    for dotted, spec in configuration.all_keys().items():
        if dotted in wanted or dotted.split(".")[0] in wanted:
            value = defaults
            for part in dotted.split("."):
                value = value[part]
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            lines.append(f"  {dotted}={shown}\n      {spec.metadata['help']}")
    groups = [g for g in configuration.GROUPS if g in wanted]
    for group in groups:
        lines.append(f"  {group}={'|'.join(sorted(p.stem for p in (configuration.CONF / group).glob('*.yaml')))}")
    return "\n".join(lines)
