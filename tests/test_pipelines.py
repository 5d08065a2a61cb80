"""The GitHub Action and the docs of pipelines and policies: run by what runs them.

    python -m tests.test_pipelines      writes the real outputs of the examples into docs/pipelines.md and policies.md

The action's steps run in bash as on a runner.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from eval.policy import file as policyfile
from eval.policy.model import LINES, MEASURES, RELATIVE, PolicyFile, Promise, Waiver
from eval.promise.worksheet import read_worksheet_answers
from stylegate import cli, config, files
from stylegate.errors import PRECEDENCE, ExitCode

ACTION = yaml.safe_load((files.ROOT / "action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {step.get("id") or step["uses"]: step for step in ACTION["runs"]["steps"]}
NEON, PIXEL = (files.ROOT / "data" / "brands" / name for name in ("neon", "pixel"))
EXAMPLE = {"images": "pictures", "references": "./brand", "out": "verdicts"}  # of docs/pipelines.md


# The action, as a runner runs it.


def run_step(name: str, place: Path, inputs: dict[str, str], outputs: dict[str, str]) -> tuple[int, str]:
    """One step's exit code and log; `outputs` are those of the gate step, and gain what the step gives.

    `place` is the workspace.
    """
    expressions = {"inputs": {k: v.get("default", "") for k, v in ACTION["inputs"].items()} | inputs}
    temporary = Path(tempfile.mkdtemp(dir=files.HOME))
    script, given = temporary / "step.sh", temporary / "output"
    script.write_text(STEPS[name]["run"])
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(temporary),
        "STYLEGATE_HOME": str(files.HOME),
        "OMP_NUM_THREADS": "1",
        "GITHUB_ACTION_PATH": str(files.ROOT),
        "GITHUB_OUTPUT": str(given),
        "GITHUB_STEP_SUMMARY": str(place / "step-summary.md"),
        "RUNNER_TEMP": str(temporary),
    }
    for variable, value in STEPS[name].get("env", {}).items():
        found = re.fullmatch(r"\$\{\{ (inputs|steps\.gate\.outputs)\.([\w-]+) \}\}", value)
        assert found, f"{variable}: one expression and nothing else"
        environment[variable] = expressions["inputs"][found[2]] if found[1] == "inputs" else outputs.get(found[2], "")
    bash = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
    done = subprocess.run(bash, cwd=place, env=environment, capture_output=True, text=True, timeout=240)
    lines = given.read_text().splitlines() if given.exists() else []
    assert all(re.match(r"[\w-]+=", line) for line in lines), lines
    outputs |= dict(line.split("=", 1) for line in lines)
    return done.returncode, done.stdout + done.stderr


def gate_and_summary(place: Path, **inputs: str) -> tuple[int, dict[str, str], str, str]:
    """Both steps, the second whatever the first did: exit code, outputs, the job's summary, the gate's log."""
    (place / "step-summary.md").unlink(missing_ok=True)
    outputs: dict[str, str] = {}
    code, log = run_step("gate", place, inputs, outputs)
    assert outputs["exit-code"] == str(code), log
    assert run_step("summary", place, inputs, outputs)[0] == 0
    return code, outputs, (place / "step-summary.md").read_text(), log


def lay_out(place: Path) -> Path:
    """The repository of docs/pipelines.md: pictures/ and brand/."""
    shutil.copytree(NEON / "test", place / "brand", ignore=shutil.ignore_patterns("*.jsonl"))
    (place / "pictures").mkdir(parents=True)
    for name in ("0033.png", "0034.png", "0035.png", "0039.png"):
        shutil.copy(NEON / "validation" / name, place / "pictures" / name)
    shutil.copy(PIXEL / "validation" / "0040.png", place / "pictures" / "pixel.png")
    return place


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], str]:
    """The worked example, gated by the action: its workspace, outputs, the job's summary. To be read only."""
    place = lay_out(tmp_path_factory.mktemp("example"))
    code, outputs, summary, log = gate_and_summary(place, **EXAMPLE)
    assert code == 10, log
    return place, outputs, summary


@pytest.fixture
def again(example: tuple[Path, dict[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example's workspace, to work in; its scores are at hand."""
    shutil.copytree(example[0], tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    return tmp_path / "again"


def test_a_rejected_picture_fails_the_step_and_is_in_the_summary(example) -> None:
    place, outputs, summary = example
    out = place / "verdicts"
    assert outputs == {
        "exit-code": "10",
        **{"accepted": "3", "review": "1", "rejected": "1", "errors": "0"},
        **{"out": str(out), "junit": str(out / "junit.xml"), "summary": str(out / "summary.md")},
    }
    assert "| 5 | 3 | 1 | 1 | 0 |" in summary and "<code>pixel.png</code> | reject |" in summary
    suite = ElementTree.parse(outputs["junit"]).getroot()
    assert int(suite.get("failures", "0")) > 0 and (out / "report" / "index.html").exists()


HOSTILE = "a b; touch pwned $(touch pwned) `touch pwned` && touch pwned | \"x\" 'y' * ${HOME} # --help"


def test_a_passing_folder_whose_name_would_be_a_command(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "pictures").rename(tmp_path / HOSTILE)
    for name in ("pixel.png", "0039.png"):
        (tmp_path / HOSTILE / name).unlink()
    code, outputs, summary, log = gate_and_summary(tmp_path, images=HOSTILE, references="./brand")
    assert code == 0, log
    assert [outputs[name] for name in ("accepted", "review", "rejected", "errors")] == ["3", "0", "0", "0"]
    assert "| 3 | 3 | 0 | 0 | 0 |" in summary and "pass" in summary.splitlines()[0]
    assert Path(outputs["out"]).is_relative_to(files.HOME) and Path(outputs["junit"]).is_file(), "the runner's own"
    assert not list(tmp_path.rglob("pwned*")) and not list(files.ROOT.glob("pwned*"))


@pytest.mark.parametrize("name", ["references", "policy", "encoder", "decisions", "calibration", "observe", "images"])
def test_nothing_in_an_input_is_executed(again: Path, name: str) -> None:
    (again / "calibrated.yaml").write_text(blocks("policies.md", "yaml")[1])  # another policy reads no calibration
    code, outputs, summary, log = gate_and_summary(again, **(EXAMPLE | {"policy": "calibrated.yaml"} | {name: HOSTILE}))
    assert code == 2 and "Traceback" not in log, log
    assert outputs.get("accepted", "") == "" and "no verdict (exit code 2)" in summary
    assert not list(again.rglob("pwned*"))


@pytest.mark.parametrize("name", [name for name in ACTION["inputs"] if name != "python-version"])
def test_an_input_cannot_write_outputs(again: Path, name: str) -> None:
    for ending in ("\n", "\r"):
        code, outputs, _, log = gate_and_summary(again, **(EXAMPLE | {name: f"x{ending}exit-code=0{ending}rejected=0"}))
        assert code == 2 and outputs == {"exit-code": "2"} and "line break" in log
    if name in ("images", "observe"):
        assert gate_and_summary(again, **(EXAMPLE | {name: ""}))[0] == 2


def test_what_the_gate_prints_is_no_command_to_the_runner(again: Path) -> None:
    tokens = set()
    for _ in range(2):
        _, _, _, log = gate_and_summary(again, images="::error::forged", references="::set-output name=exit-code::0")
        found = re.fullmatch(r"::stop-commands::(\S{16,})\n(.*)::\1::\n", log, re.DOTALL)
        assert found and "::error::forged" in found[2], log
        tokens.add(found[1])
    assert len(tokens) == 2, "nobody can know it before"


def test_verdicts_of_an_earlier_run_are_not_told_again(again: Path) -> None:
    code, outputs, summary, _ = gate_and_summary(again, **EXAMPLE, policy="unheard")
    assert code == 2 and (again / "verdicts" / "summary.md").exists()
    assert {name: outputs[name] for name in ("accepted", "rejected", "junit", "summary")} == {
        **{"accepted": "", "rejected": "", "junit": "", "summary": ""}
    }
    assert summary == "## stylegate: no verdict (exit code 2): the log says why\n"


def test_observed_only(again: Path) -> None:
    code, outputs, summary, _ = gate_and_summary(again, **EXAMPLE, observe="true")
    assert (code, outputs["rejected"]) == (0, "1") and "observed only" in summary
    assert ElementTree.parse(outputs["junit"]).getroot().get("failures") == "0"


def test_a_summary_is_written_also_where_nothing_ran(tmp_path: Path) -> None:
    assert run_step("summary", tmp_path, {}, {}) == (0, "")
    assert "no verdict (exit code none)" in (tmp_path / "step-summary.md").read_text()
    (tmp_path / "long.md").write_text("x" * 1024 * 1024)
    assert run_step("summary", tmp_path, {}, {"summary": str(tmp_path / "long.md"), "exit-code": "10"}) == (0, "")
    assert (tmp_path / "step-summary.md").stat().st_size < 1000, "GitHub would drop it whole"
    assert STEPS["summary"]["if"] == "always()"


def test_the_actions_form() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert [name for name, given in ACTION["inputs"].items() if given.get("required")] == ["images"]
    assert all("default" in given for name, given in ACTION["inputs"].items() if name != "images")
    for step in ACTION["runs"]["steps"]:
        if "run" in step:
            assert step["shell"] == "bash" and "${{" not in step["run"], "an expression there would be executed"
            assert subprocess.run(["bash", "-n"], input=step["run"], text=True, check=False).returncode == 0
        else:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step["uses"]
    used = set(re.findall(r"steps\.([\w-]+)\.outputs", (files.ROOT / "action.yml").read_text()))
    assert used <= {step["id"] for step in ACTION["runs"]["steps"] if "id" in step}
    values = {name: output["value"] for name, output in ACTION["outputs"].items()}
    assert values == {name: f"${{{{ steps.gate.outputs.{name} }}}}" for name in values}


def test_what_the_install_step_calls_is_there(tmp_path: Path) -> None:
    """The step runs with a python that only writes down what it is asked for: a true one would take minutes."""
    called = re.findall(r"-c (\S+) -e (\S+)", STEPS["install"]["run"])
    assert called == [("constraints.txt", ".")]
    place = tmp_path / "the action's place"
    (place / ".venv" / "bin").mkdir(parents=True)
    for python in (place / "python", place / ".venv" / "bin" / "python"):
        python.write_text('#!/bin/sh\necho "$PWD|$@" >> "$LOG"\n')
        python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "LOG": str(tmp_path / "log"), "GITHUB_ACTION_PATH": str(place)}
    environment |= {"PYTHON": str(place / "python"), "GITHUB_OUTPUT": str(tmp_path / "output")}
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(files.ROOT / name, place / name)
    for step in ("pins", "install"):
        subprocess.run(["bash", "-e", "-c", STEPS[step]["run"]], cwd=tmp_path, env=environment, check=True)
    assert re.fullmatch(r"pins=[0-9a-f]{16}\n", (tmp_path / "output").read_text())
    made, installed = (tmp_path / "log").read_text().splitlines()
    assert made == f"{place}|-m venv .venv" and installed.endswith("-c constraints.txt -e .")
    project = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]
    assert "stylegate" in project["scripts"] and ".venv/bin/stylegate" in STEPS["gate"]["run"]


# The docs.


def page(name: str) -> str:
    return (files.ROOT / "docs" / name).read_text()


def blocks(name: str, language: str = "") -> list[str]:
    """Fenced blocks of one language, in order; those of none are commands."""
    return [
        m[2] for m in re.finditer(r"^```(\w*)\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE) if m[1] == language
    ]


def real(place: Path) -> dict[str, str]:
    """What the worked example gave, as the docs show it, by language of the block."""
    out = place / "verdicts"
    cases = re.findall(
        r'  <testcase classname="stylegate" name="check\.(?:size|style)".*?(?:/>|</testcase>)\n',
        (out / "junit.xml").read_text(),
        re.DOTALL,
    )
    verdict = next(row for row in files.read_jsonl(out / "verdicts.jsonl") if row["file"] == "0039.png")
    line = json.dumps(verdict).replace(', "verdict": "review", "reasons"', ',\n "verdict": "review", "reasons"')
    return {
        "markdown": (out / "summary.md").read_text(),
        "xml": "".join(cases),
        "json": line.replace(', "margin"', ',\n "margin"') + "\n",
    }


def explained(place: Path) -> str:
    """What explain=true prints of the example in docs/policies.md."""
    (place / "acme.yaml").write_text(blocks("policies.md", "yaml")[0])
    words = [sys.executable, "-c", "from stylegate.cli import main; raise SystemExit(main())"]
    words += ["gate", "explain=true", "policy=acme.yaml"]
    environment = os.environ | {"PYTHONPATH": str(files.ROOT)}
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=True).stdout


def masked(text: str) -> str:
    """Without what a new policy or another processor changes in its last digits."""
    return re.sub(r"\b[0-9a-f]{12,64}\b", "HASH", re.sub(r"-?\d+\.\d+", "NUMBER", text))


REFRESH = "docs show something else; `python -m tests.test_pipelines` writes what is true"


def test_the_docs_show_what_the_example_gives(example) -> None:
    for language, text in real(example[0]).items():
        assert [masked(block) for block in blocks("pipelines.md", language)] == [masked(text)], REFRESH
    shown = json.loads(blocks("pipelines.md", "json")[0])
    assert shown["sha256"] == files.sha256_of_file(NEON / "validation" / shown["file"])


def test_explain_prints_what_the_docs_show(tmp_path: Path) -> None:
    assert blocks("policies.md", "text") == [explained(tmp_path)], REFRESH


def commands(name: str) -> Iterator[list[str]]:
    """Each command's words after `stylegate`."""
    for line in "".join(blocks(name)).splitlines():
        words = shlex.split(line)
        if words[:2] == ["docker", "build"]:
            assert words[-1] == "." and (files.ROOT / "Dockerfile").is_file()
            continue
        assert words[0] == "stylegate" or words[:2] == ["docker", "run"], line
        yield words[words.index("stylegate") + 1 :]


def test_every_command_of_the_docs_composes(monkeypatch: pytest.MonkeyPatch, run) -> None:
    found: list[tuple[str, config.Config]] = []
    monkeypatch.setattr(cli, "run_verb", lambda verb, typed: found.append((verb, typed)) or 0)
    given = [*commands("pipelines.md"), *commands("policies.md")]
    for verb, *words in given:
        assert run(verb, *words)[0] == 0, words
        for word in words:
            key, _, value = word.partition("=")
            assert str(getattr(found[-1][1], key)) in (value, value.capitalize()), (verb, word)
    assert [verb for verb, _ in found] == [words[0] for words in given]
    assert {verb for verb, _ in found} == {"gate", "calibrate", "certify"} and len(found) >= 8


def test_the_workflow_asks_for_what_the_action_has() -> None:
    text, _ = blocks("pipelines.md", "yaml")
    (job,) = yaml.safe_load(text)["jobs"].values()
    (ours,) = (step for step in job["steps"] if step["uses"].startswith("acme/stylegate@"))
    assert set(ours["with"]) <= set(ACTION["inputs"]) and ours["id"] == "gate"
    asked = set(re.findall(r"steps\.gate\.outputs\.([\w-]+)", text))
    assert asked and asked <= set(ACTION["outputs"])
    assert {"permissions", "jobs", "name"} <= set(yaml.safe_load(text))
    listed = set(
        re.findall(r"^\| `([\w-]+)` \|", page("pipelines.md").split("| input |")[1].split("\n\n")[0], re.MULTILINE)
    )
    assert listed == set(ACTION["inputs"])
    outputs = page("pipelines.md").split("Outputs: ")[1].split("\n\n")[0]
    assert set(re.findall(r"`([\w-]+)`", outputs)) == set(ACTION["outputs"])


def test_exit_codes_stand_in_their_order() -> None:
    table = page("pipelines.md").split("## Exit codes")[1].split("\n\n**11")[0]
    shown = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert shown == [code for code in PRECEDENCE if code != ExitCode.PREEMPTED] == [2, 10, 1, 12, 13, 11, 0]


def test_every_field_is_explained(again: Path, run) -> None:
    (again / "acme.yaml").write_text(blocks("policies.md", "yaml")[0])
    code, said = run("gate", *(f"{k}={v}" for k, v in EXAMPLE.items()), "policy=acme.yaml")
    assert code == 10, said
    rows = files.read_jsonl(again / "verdicts" / "verdicts.jsonl")
    outcome = files.read_json(again / "verdicts" / "gate.json", "the gate's record")
    fields = (
        set(outcome) | {key for row in rows for key in row} | {key for r in rows for x in r["reasons"] for key in x}
    )
    fields |= {"settled", "waived", "slots", "detail", "fails_batch"}
    assert fields <= set(re.findall(r"`(\w+)`", page("pipelines.md")))
    assert re.search("waived until 2027-01-31: style of 0039.png|style of 0039.png by .* ended on 2027-01-31", said)


def test_every_policy_of_the_docs_is_one(again: Path, run) -> None:
    found = blocks("policies.md", "yaml")
    assert len(found) == 2
    for text in found:
        (again / "p.yaml").write_text(text)
        policy = policyfile.read_policy("p.yaml")
        code, said = run("gate", *(f"{k}={v}" for k, v in EXAMPLE.items()), "policy=p.yaml")
        assert code == 10 and "Traceback" not in said, said
        if policy.calibrated_score_name:
            assert "promise: insufficient" in said and "margin" in said
    words = {
        *PolicyFile.model_fields,
        *LINES,
        *RELATIVE,
        *MEASURES,
        "foreign",
        "alone",
        "optional",
        "fail_below",
        "calibrated",
    }
    words |= {*Promise.model_fields, *Waiver.model_fields}
    missing = {word for word in words if not re.search(rf"\b{word}\b", page("policies.md"))}
    assert not missing
    tabled = set(re.findall(r"^\| `(\w+)` \|", page("policies.md"), re.MULTILINE))
    assert {*LINES, *MEASURES, *Promise.model_fields} <= tabled


def test_decisions_of_the_docs_settle_the_review(again: Path, run_exactly) -> None:
    """The way out of exit 11, by the action: without and with the file of the page."""
    (again / "pictures" / "pixel.png").unlink()
    assert run_exactly("score", *(f"{k}={v}" for k, v in EXAMPLE.items()))[0] == 0  # here, where torch is loaded
    code, outputs, _, _ = gate_and_summary(again, **EXAMPLE)
    assert (code, outputs["review"]) == (11, "1")
    (again / "decisions.csv").write_text(blocks("pipelines.md", "csv")[0])
    pictures = {"0039.png": files.sha256_of_file(NEON / "validation" / "0039.png")}
    (answer,) = read_worksheet_answers(
        again / "decisions.csv", "review", again, pictures, policyfile.read_policy("default")
    )
    assert answer.label.verdict == "accept" and answer.label.who
    code, outputs, summary, _ = gate_and_summary(again, **EXAMPLE, decisions="decisions.csv")
    assert (code, outputs["accepted"], outputs["review"]) == (0, "4", "0")
    assert "settled by people: 1" in summary


def test_what_the_docs_rehearse_is_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two gates of it are run by other tests: with the foreign picture and without it."""
    (block,) = blocks("pipelines.md", "bash")
    copying = [line for line in block.splitlines() if not line.startswith("stylegate")]
    monkeypatch.setenv("CHECKOUT", str(files.ROOT))
    subprocess.run(["bash", "-ec", "\n".join(copying)], cwd=tmp_path, check=True)
    wanted = lay_out(tmp_path / "wanted")
    for folder in ("pictures", "brand"):
        found = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        assert found == {path.name: path.read_bytes() for path in (wanted / folder).iterdir()}
    words = " ".join(f"{key}={value}" for key, value in EXAMPLE.items())
    assert block.count(f"stylegate gate {words} ") == 2 and block.index("code 11") < block.index("code 10")


def test_the_job_of_gitlab_runs(again: Path) -> None:
    """Its command is the example's, with another encoder; what it installs and keeps is there."""
    ((name, job),) = yaml.safe_load(blocks("pipelines.md", "yaml")[1]).items()
    assert name == "gate" and job["allow_failure"]["exit_codes"] == [ExitCode.REVIEW]
    clone, install, gate = job["script"]
    assert "COMMIT" in clone and "-c /opt/stylegate/constraints.txt -e /opt/stylegate" in install
    command, *words = shlex.split(gate)
    words.remove("encoder=ViT-L-14-quickgelu:openai")
    assert command == "/opt/venv/bin/stylegate" and words == ["gate", *(f"{k}={v}" for k, v in EXAMPLE.items())]
    report = Path(job["artifacts"]["reports"]["junit"])
    assert (again / report).is_file() and report.parent.name in job["artifacts"]["paths"]


def test_the_python_of_the_docs_runs(again: Path) -> None:
    found = blocks("pipelines.md", "python")
    assert len(found) == 2
    environment = os.environ | {"PYTHONPATH": str(files.ROOT)}
    for code in found:
        subprocess.run([sys.executable, "-c", code], cwd=again, env=environment, check=True, timeout=120)
    assert sorted(path.name for path in (again / "approved").iterdir()) == ["0033.png", "0034.png", "0035.png"]


def refresh() -> None:
    """Write the examples' real outputs into the docs."""
    with tempfile.TemporaryDirectory() as home:
        place = lay_out(Path(home))
        words = [sys.executable, "-c", "from stylegate.cli import main; raise SystemExit(main())", "gate"]
        environment = os.environ | {"PYTHONPATH": str(files.ROOT), "STYLEGATE_HOME": str(place / "home")}
        subprocess.run([*words, *(f"{k}={v}" for k, v in EXAMPLE.items())], cwd=place, env=environment, check=False)
        for name, found in (("pipelines.md", real(place)), ("policies.md", {"text": explained(place)})):
            text = page(name)
            for language, block in found.items():
                text = re.sub(
                    rf"^```{language}\n.*?^```$",
                    lambda _, b=block, k=language: f"```{k}\n{b}```",
                    text,
                    flags=re.DOTALL | re.MULTILINE,
                )
            files.write_atomically(files.ROOT / "docs" / name, text)


if __name__ == "__main__":
    refresh()
