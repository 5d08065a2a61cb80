"""The ledger: appended to, each row once; replayed to W&B once, by digest."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stylegate import files, lineage, wandbrun
from stylegate.errors import DataError, SurroundingsError
from tests.fake_wandb import KEY, FakeWandb, aliases_of, refusing, speaking_to

DIGESTS = {what: str(number) * 64 for number, what in enumerate(lineage.TYPES)}
CHAIN = {
    "batch": [
        ("use", "lora"),
        ("make", "batch"),
        ("make", "calibration"),
        ("make", "certificate"),
        ("make", "package"),
    ],
    "run": [("use", "brand-set"), ("make", "lora")],
}


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """A batch and the run whose LoRA it used, the batch named first."""
    (tmp_path / "run" / "lora").mkdir(parents=True)
    (tmp_path / "run" / "lora" / "lora.safetensors").write_text("weights")
    for name, rows in CHAIN.items():
        for kind, what in rows:
            lineage.record_artifact(
                tmp_path / name, kind, what, f"the {what}", DIGESTS[what], [tmp_path / "run" / "lora"]
            )
    return [tmp_path / name for name in CHAIN]


def test_rows_are_appended_once_and_point_from_their_place(tmp_path: Path, chain: list[Path]) -> None:
    before = (tmp_path / "run" / "lineage.jsonl").read_bytes()
    lineage.record_artifact(tmp_path / "run", "make", "lora", "the lora", DIGESTS["lora"], [tmp_path / "run" / "lora"])
    assert (tmp_path / "run" / "lineage.jsonl").read_bytes() == before
    lineage.record_artifact(tmp_path / "run", "make", "lora", "the lora", "a" * 64, [tmp_path / "elsewhere" / "x"])
    after = (tmp_path / "run" / "lineage.jsonl").read_bytes()
    assert after.startswith(before) and len(after) > len(before)
    rows = files.read_jsonl(tmp_path / "run" / "lineage.jsonl")
    assert rows[-1] == {
        "kind": "make",
        "artifact": "the lora",
        "type": "lora",
        "sha256": "a" * 64,
        "paths": ["../elsewhere/x"],
    }
    with pytest.raises(AssertionError):
        lineage.record_artifact(tmp_path / "run", "make", "picture", "x", "a" * 64, [])


def test_the_chain_is_listed_from_brand_set_to_package(chain: list[Path]) -> None:
    lines = lineage.lineage_lines({path: lineage.read_lineage(path) for path in chain})
    assert [line.split()[0] for line in lines] == list(
        lineage.TYPES[1:]
    )  # `base` is named by runs with draw_base= alone
    assert lines[0].endswith("given; used by run") and lines[1].endswith("made by run; used by batch")
    assert lines[5].endswith("made by batch") and DIGESTS["package"][:12] in lines[5]
    alone = lineage.lineage_lines({chain[0]: lineage.read_lineage(chain[0])})
    assert alone[0].startswith("lora") and alone[0].endswith("made elsewhere; used by batch")


def test_a_digest_of_facts_is_their_own_or_over_all() -> None:
    assert lineage.given_or_computed_artifact_digest({"sha256": "x", "other": 1}) == "x"
    assert lineage.given_or_computed_artifact_digest(
        {"plan": "a", "verdicts": "b"}
    ) == lineage.given_or_computed_artifact_digest({"verdicts": "b", "plan": "a"})


def test_no_ledger_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ledger of a run or batch: .*lineage\.jsonl"):
        lineage.print_lineage_and_send_missing([tmp_path])
    files.append_jsonl(tmp_path / "lineage.jsonl", dict.fromkeys(lineage.ROW, "nonsense"))
    with pytest.raises(DataError, match="no ledger"):
        lineage.print_lineage_and_send_missing([tmp_path])


class Service:
    """As much of wandb.Api and of a run as replay uses; it keeps what it is told."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []  # run, alias
        self.used: list[tuple[str, str]] = []
        self.default_entity = "team"

    def artifact_exists(self, path: str, type: str) -> bool:  # noqa: A002
        assert path.startswith("team/tests/")
        return path.rsplit(":", 1)[1] in {alias for _, alias in self.made}

    def run(self, path: str) -> Any:
        mine = [SimpleNamespace(aliases=["v0", alias]) for run, alias in self.used if run == path]
        return SimpleNamespace(used_artifacts=lambda: mine)

    def start(self, directory: Path, told: dict, mode: str, job: str | None, config: dict, limits: tuple) -> Any:
        assert mode == "online" and job is None and config == {}, "what the run's own tracker said stays"
        path = f"team/{told['project']}/{told['id']}"

        def log_artifact(made: Any, aliases: list[str]) -> Any:
            self.made.append((path, aliases[1]))
            return SimpleNamespace(wait=lambda timeout: None)

        def use_artifact(named: str, type: str) -> None:  # noqa: A002
            self.used.append((path, named.split(":")[1]))

        return SimpleNamespace(log_artifact=log_artifact, use_artifact=use_artifact, finish=lambda: None)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    import wandb

    found = Service()
    monkeypatch.setenv("WANDB_PROJECT", "tests")
    monkeypatch.setattr(wandb, "Api", lambda: found)
    monkeypatch.setattr(wandbrun, "start_wandb_run", found.start)
    return found


def test_replay_tells_each_thing_once(chain: list[Path], service: Service, capsys) -> None:
    assert lineage.print_lineage_and_send_missing(chain) == 0
    assert [alias for _, alias in service.made] == [
        wandbrun.digest_alias(DIGESTS[what]) for what in ("lora", "batch", "calibration", "certificate", "package")
    ], "what is used is made before"
    assert [alias for _, alias in service.used] == [
        wandbrun.digest_alias(DIGESTS[what]) for what in ("brand-set", "lora")
    ]
    assert len({run for run, _ in service.used}) == 2, "each directory is its own W&B run"
    assert "7 of 7 records were sent" in capsys.readouterr().out
    before = (list(service.made), list(service.used))
    assert lineage.print_lineage_and_send_missing(chain) == 0 and (service.made, service.used) == before
    assert "0 of 7 records were sent" in capsys.readouterr().out


def test_replay_goes_on_where_it_was_stopped(chain: list[Path], service: Service, monkeypatch) -> None:
    real, left = wandbrun.draft_artifact, iter([True, True])

    def draft(*arguments: Any) -> Any:
        if not next(left, False):
            raise ConnectionError("the line was cut")
        return real(*arguments)

    monkeypatch.setattr(wandbrun, "draft_artifact", draft)
    with pytest.raises(SurroundingsError, match="the line was cut"):
        lineage.print_lineage_and_send_missing(chain)
    assert len(service.made) == 2
    monkeypatch.setattr(wandbrun, "draft_artifact", real)
    assert lineage.print_lineage_and_send_missing(chain) == 0
    assert len(service.made) == len(set(service.made)) == 5 and len(service.used) == 2


def test_without_a_key_it_names_what_it_would_do(chain: list[Path], monkeypatch, capsys) -> None:
    with speaking_to(refusing()):
        monkeypatch.delenv("WANDB_API_KEY")
        monkeypatch.setenv("NETRC", str(chain[0] / "none"))
        with pytest.raises(SurroundingsError) as error:
            lineage.print_lineage_and_send_missing(chain)
    said = str(error.value)
    assert "No API key configured" in said and "Next: wandb login" in said and KEY not in said
    assert f"run: make lora the-lora:sha256-{DIGESTS['lora']}" in said and len(error.value.problems) == 7
    assert capsys.readouterr().out.startswith("brand-set"), "the chain is printed all the same"


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    with FakeWandb() as found, speaking_to(found.url):
        yield found


def test_with_wandbs_own_client(chain: list[Path], server: FakeWandb) -> None:
    """The same by the real client, at a server that answers as W&B's was seen to be asked."""
    assert lineage.print_lineage_and_send_missing(chain) == 0
    stored = {server.title(i): aliases_of(found) for i, found in server.artifacts.items()}
    assert stored.keys() == {f"the-{what}" for what in lineage.TYPES[1:]}
    assert all(wandbrun.digest_alias(DIGESTS[name.removeprefix("the-")]) in aliases for name, aliases in stored.items())
    used = sorted(server.title(i) for run in server.runs.values() for i in run.used)
    assert used == ["the-brand-set", "the-lora"]
    assert server.runs["the-lora"].files.keys() >= {"lora.safetensors"}
    made = [name for run in server.runs.values() for name in run.made]
    assert lineage.print_lineage_and_send_missing(chain) == 0
    assert [name for run in server.runs.values() for name in run.made] == made
