"""The house: import direction, shipped YAML, frozen keys, help."""

import ast
import builtins
import logging
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stylegate import cli, config, configcheck, files, verbs

ROOMS = {"stylegate": set(), "eval": {"stylegate"}, "train": {"eval", "stylegate"}}
YAML_COUNT = 27  # in conf/; a new one is counted here


def imports(path: Path) -> list[tuple[str, int]]:
    """(module or "import module", depth) of every import; depth 0 is the file's top level."""
    found = []

    def walk(node: ast.AST, depth: int) -> None:
        for child in ast.iter_child_nodes(node):
            inside = depth + isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(child, ast.Import):
                found.extend((f"import {alias.name}", depth) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.append((child.module or "", depth))
            walk(child, inside)

    walk(ast.parse(path.read_text()), 0)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    for path in (files.ROOT / room).rglob("*.py"):
        for module, depth in imports(path):
            top = module.removeprefix("import ").split(".")[0]
            if top in ROOMS and top != room and top not in ROOMS[room]:
                assert path == files.ROOT / "stylegate" / "cli.py" and depth > 0, f"{path} imports {module}"
            assert module != "import eval", f"{path}: `import eval` would hide the builtin"


def test_the_product_does_not_know_how_the_miniature_was_made() -> None:
    """Least of all its judge, which knows the demo brands. Nor is the renderer needed to run anything."""
    for room in ROOMS:
        for path in (files.ROOT / room).rglob("*.py"):
            if "miniature" not in path.relative_to(files.ROOT).parts:
                named = [module for module, _ in imports(path)]
                assert not [m for m in named if "miniature" in m or "resvg" in m], path


def test_every_package_is_installed() -> None:
    """A checkout reaches all folders; an installation reaches those that pyproject.toml lists."""
    listed = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path.parent for room in ROOMS for path in (files.ROOT / room).rglob("__init__.py")]
    assert sorted(listed) == sorted(".".join(folder.relative_to(files.ROOT).parts) for folder in found)


def test_the_rule_would_catch_a_wrong_import(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from train.loop import train\n")
    assert imports(tmp_path / "x.py") == [("train.loop", 1)]


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module name -> the modules of the rooms below `root` that it imports, those inside functions included.

    stylegate/cli.py imports every verb inside functions, and no other file imports it for more than `main`: left out.
    """
    paths = {path.relative_to(root): path for room in ROOMS for path in (root / room).rglob("*.py")}
    modules = {".".join(short.with_suffix("").parts).removesuffix(".__init__"): p for short, p in paths.items()}
    del modules["stylegate.cli"]
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                each = [f"{node.module}.{alias.name}" for alias in node.names]
                named |= {name if name in modules else str(node.module) for name in each}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        graph[module] = named & modules.keys()
    return graph


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """Modules from which the imports lead back to themselves."""

    def reached(start: str) -> set[str]:
        found, open_ = set(), [start]
        while open_:
            for name in graph[open_.pop()] - found:
                found.add(name)
                open_.append(name)
        return found

    return {module for module in graph if module in reached(module)}


def test_no_file_imports_in_a_circle() -> None:
    assert in_circles(import_graph(files.ROOT)) == set()


def test_a_circle_through_a_function_is_seen(tmp_path: Path) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
    (tmp_path / "stylegate" / "cli.py").touch()
    (tmp_path / "train" / "a.py").write_text("from train import b\nimport eval.x\n")
    (tmp_path / "train" / "b.py").write_text("def f():\n    from train.a import x\n")
    (tmp_path / "eval" / "x.py").write_text("import math\n")
    assert in_circles(import_graph(tmp_path)) == {"train.a", "train.b"}


def test_no_python_where_only_data_belongs() -> None:
    made = files.ROOT / "data" / "exports"  # by `make demo`: each package has its receiver's verify.py
    for place in ("conf", "data", "checkpoints"):
        assert not [path for path in (files.ROOT / place).rglob("*.py") if made not in path.parents]
    assert callable(builtins.eval)


def composable() -> list[Path]:
    """Hydra's own; conf/hardware/accelerate/ is read by accelerate."""
    return sorted(p for p in (files.ROOT / "conf").rglob("*.yaml") if p.parent.name != "accelerate")


# machines, processes on each, and the port that they meet at, where accelerate needs one
LAUNCHES = {"one_card": (1, 1, None), "two_cards": (1, 2, 0), "eight_cards": (1, 8, 0), "two_machines": (2, 8, 29500)}


def test_accelerate_reads_its_configs_and_launches_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the launcher's own parser, which refuses unknown keys, from the command that each file opens with."""
    monkeypatch.chdir(files.ROOT)
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)  # by who works beside the tests
    places = (files.ROOT / "conf" / "hardware" / "accelerate").glob("*.yaml")
    commands = {path.stem: path.read_text().splitlines()[0].removeprefix("# ").split() for path in places}
    assert commands.keys() == LAUNCHES.keys()
    told_in_docs = (files.ROOT / "docs" / "training.md").read_text()
    for name, (machines, processes, port) in LAUNCHES.items():
        begin, launch, *rest = commands[name]
        path = f"conf/hardware/accelerate/{name}.yaml"
        assert (begin, launch, rest[1]) == ("accelerate", "launch", path) and path in told_in_docs
        told, config, _ = _validate_launch_command(launch_command_parser().parse_args(rest))
        assert (told.module, told.training_script, told.training_script_args) == (True, "train", ["brand=acme"])
        assert (told.num_machines, told.num_processes) == (machines, machines * processes)
        assert (told.multi_gpu, told.main_process_port) == (processes > 1, port)
        assert (told.mixed_precision, told.dynamo_backend) == ("no", "no"), "the trainer decides both"
        assert not (told.use_fsdp or told.use_deepspeed or told.use_megatron_lm or told.use_parallelism_config)
        if processes > 1:
            prepare_multi_gpu_env(told)
            assert told.nproc_per_node == str(processes)
            assert machines == 1 or (told.rdzv_endpoint, told.nnodes, told.node_rank) == ("HOST:29500", "2", 0)
        assert config and config.compute_environment.value == "LOCAL_MACHINE" and not config.use_cpu


def test_every_yaml_composes() -> None:
    found = composable()
    assert len(found) == YAML_COUNT
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=config.Config)
    with initialize_config_dir(str(files.ROOT / "conf"), version_base="1.3"):
        for path in found:
            group = path.relative_to(files.ROOT / "conf").parent.as_posix()
            overrides = [] if group == "." else [f"{group}={path.stem}"]
            composed = compose("config", overrides)
            assert isinstance(configcheck.checked_config(composed, []), config.Config)
            assert not OmegaConf.missing_keys(composed)


@pytest.mark.parametrize("path", composable(), ids=lambda p: p.stem)
def test_every_yaml_opens_with_its_command(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    verb = lines[0].removeprefix("# stylegate ").split()[0]
    assert verb in verbs.VERBS or verb == "VERB"
    assert lines[1].startswith("# ") and len(lines[1]) > 20


def test_config_keys_are_frozen() -> None:
    """A new knob shows in review: add it to tests/golden/config_keys.txt on purpose."""
    golden = (files.ROOT / "tests" / "golden" / "config_keys.txt").read_text().split()
    assert sorted(config.config_fields_by_key()) == golden


@pytest.mark.parametrize("verb", [v for v in verbs.VERBS if v != "demo"])
def test_help_names_the_verbs_keys(verb: str) -> None:
    text = verbs.verb_help(verb)
    assert f"stylegate {verb}" in text
    known = {*config.config_fields_by_key(), *(key.split(".")[0] for key in config.config_fields_by_key())}
    entry = verbs.VERBS[verb]
    assert {*entry.keys.split(), *entry.finds.split()} <= known
    assert entry.keys or entry.takes


def test_every_key_is_read_by_a_verb() -> None:
    assert all(any(verbs.verb_reads_key(verb, key) for verb in verbs.VERBS) for key in config.config_fields_by_key())


def documented_commands() -> list[str]:
    """Every command in README and docs, in blocks and in sentences, and the one that each file of conf/ opens with.

    $W stands for other words. Commands with `...` are no whole ones.
    """
    text = "\n".join(page.read_text() for page in [files.ROOT / "README.md", *(files.ROOT / "docs").glob("*.md")])
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks = "".join(fence[2] for fence in fences if fence[1] in ("", "bash"))
    sentences = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(words.split()) for words in re.findall(r"`(stylegate [a-z][^`]*)`", sentences)]
    meaning = dict(re.findall(r'^(\w+)="(.*)"$', blocks, re.MULTILINE))
    headers = "\n".join(path.read_text() for path in composable())
    lines = [*blocks.splitlines(), *inline, *re.findall(r"^# (stylegate .*)$", headers, re.MULTILINE)]
    for _ in meaning:  # one may stand in another
        lines = [re.sub(r"\$(\w+)", lambda m: meaning.get(m[1], m[0]), line) for line in lines]
    return sorted({line for line in lines if line.startswith("stylegate ") and not re.search(r"VERB|\.\.\.", line)})


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_gives_keys_that_its_verb_reads(line: str) -> None:
    verb, *words = shlex.split(line, comments=True)[1:]
    sweep = "--multirun" in words
    if verbs.VERBS[verb].keys:
        overrides = [cli.quote_text_value(word, sweep) for word in words if not word.startswith("-")]
        assert cli.valid_overrides_and_problems(verb, overrides, sweep)[1] == []


def test_no_host_in_the_pins() -> None:
    text = (files.ROOT / "constraints.txt").read_text()
    assert "://" not in text and all("==" in line for line in text.split())


def test_who_has_seen_enough_of_the_output_hears_of_no_bug() -> None:
    shell = f"{sys.executable} -c 'from stylegate.cli import main; raise SystemExit(main())' train --help | head -1"
    found = subprocess.run(["bash", "-c", shell], cwd=files.ROOT, capture_output=True, text=True, timeout=60)
    assert found.stdout.startswith("stylegate train") and "bug" not in found.stderr and "Traceback" not in found.stderr


def test_the_console_is_free_of_a_warning_about_a_kernel_but_not_of_errors() -> None:
    """peft imports bitsandbytes, which on some processors warns that it lacks a faster kernel for 4 bits."""
    ops = pytest.importorskip("bitsandbytes.backends.cpu.ops")
    assert not ops.logger.isEnabledFor(logging.WARNING) and ops.logger.isEnabledFor(logging.ERROR)
