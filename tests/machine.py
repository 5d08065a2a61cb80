"""A machine that tries to talk the gate out of it: random verbs and meddling on tiny lots, against an oracle.

Stateful testing with hypothesis. Pictures are drawn from a fixed pool, so the oracle knows what each file is by its
bytes, and judges it again in a few lines of its own. After each verb it compares: nothing leaves that the rules forbid,
nothing is printed as proven that `verify` cannot compute, each file of a folder is counted once, labels count for
their own policy alone.

Encoding and pages are what costs, so `lean` stands in for four parts: the configuration is composed by Hydra once, the
reports are not written, the encoder is loaded once (and has no domain, as a real CLIP), a calibration simulates 200
samples instead of 20,000. The cache of features is shared by all sequences, so each of the 24 pictures is encoded once.
Everything else is the product, called through stylegate.cli.main: 12 ms for a gate on 8 pictures whose scores are at
hand, 38 ms with scores to compute.
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest.mock import patch

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from PIL import Image

from eval.judging.judge import judge
from eval.lot.batch import PlanSlot, attempt_and_slot, write_plan
from eval.lot.lot import read_lot
from eval.measuring import encoder
from eval.package.layout import read_picture_rows
from eval.scorers import technical
from stylegate import cli, configcheck, files, pictures
from stylegate.errors import DataError
from tests.conftest import MADE_BY_A_MODEL
from tests.eval.packages import made_anew, provenance_of
from tests.lots import batch_record

OPEN: set[str] = set()  # faults that are known and not mended yet: the machine does not look there
STEPS = 12  # verbs and meddling of a sequence, at most
PROMISE = "promise: {alpha: 0.3, delta: 0.3, ladder: [1.0], required: true}\n"
Lines = dict[str, tuple[float, float]]  # by score: a picture below the first is rejected, below the second reviewed


class Policy(NamedTuple):
    lines: Lines
    more: str = ""  # further lines of the file
    checks: str = ""  # further checks
    required: bool = False  # nothing leaves without a proof
    calibrated: bool = False
    whole: str = ""  # the score whose first line fails the whole lot

    def text(self) -> str:
        key = {self.whole: "fail_batch_below"}
        lines = [
            f"{name}: {{{key.get(name, 'reject_below')}: {low}, review_below: {high}}}"
            for name, (low, high) in self.lines.items()
        ]
        checks = ", ".join(filter(None, [*lines, self.checks]))
        return f"version: 1\nmax_failed_share: 1\nchecks: {{{checks}}}\n{self.more}"


CONTRAST, SHARP, SOFT = (
    {"contrast": (5.0, 25.0)},
    {"contrast": (5.0, 5.0), "sharpness": (0.1, 2.0)},
    {"contrast": (5.0, 5.0)},
)
POLICIES = {
    "contrast": Policy(CONTRAST),
    "sharp": Policy(SHARP),
    "soft": Policy(SOFT),
    "distinct": Policy(CONTRAST, checks="distinct: {reject_below: -3.9}"),
    "v1": Policy(SOFT, f"guideline: v1\n{PROMISE}", required=True),
    "v2": Policy(SOFT, f"guideline: v2\n{PROMISE}", required=True),
    "calibrated": Policy(SOFT, PROMISE, "sharpness: calibrated", required=True, calibrated=True),
    "whole": Policy({"contrast": (5.0, 5.0), "sharpness": (0.7, 0.7)}, whole="sharpness"),
    "warn": Policy({}, checks="contrast: {warn_below: 200}"),
    "default": Policy({"contrast": (6.0, 6.0), "sharpness": (0.7, 0.7)}, checks="distinct: shipped"),
}
LAX = Policy({"contrast": (0.0, 0.0)}).text()


class Known(NamedTuple):
    """What the oracle knows of a picture."""

    content: bytes
    scores: dict[str, float] | None  # None: no picture

    def verdict(self, lines: Lines) -> str:
        if self.scores is None:
            return "error"
        if any(self.scores[name] < low for name, (low, _) in lines.items()) or self.scores["contrast"] < 1:
            return "reject"  # whatever is asked: a blank picture is none
        return "review" if any(self.scores[name] < high for name, (_, high) in lines.items()) else "accept"


KINDS = ("good", "good", "good", "soft", "slope", "flat", "broken", "good")


def drawn(number: int) -> bytes:
    """Blocks of strong or weak contrast, smooth slopes, one flat colour, or no picture at all."""
    random, kind = np.random.default_rng(number), KINDS[number % 8]
    blocks = random.integers(0, 256, (4, 4, 3)).astype(np.float64)
    pixels = {
        "good": np.kron(blocks, np.ones((8, 8, 1))),
        "soft": np.kron(128 + (blocks - 128) / 8, np.ones((8, 8, 1))),
        "slope": np.linspace(60 + 30 * (number // 8), 255, 32)[:, None, None] * np.ones((32, 32, 3)),
        "flat": np.full((32, 32, 3), 40.0 * (number // 8)),
    }.get(kind)
    if pixels is None:
        return b"\x89PNG\r\n\x1a\n" + bytes([number])
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def known(content: bytes) -> Known:
    try:
        image = pictures.decode_picture(content, "#ffffff").image
    except pictures.PictureError:
        return Known(content, None)
    return Known(
        content,
        dict(
            zip(
                technical.MEASURES,
                technical.technical_scores([technical.reduced_and_middle_pixels(image)])[0],
                strict=True,
            )
        ),
    )


@cache
def pool() -> dict[str, Known]:
    """24 pictures by sha256 (hex)."""
    return {files.hashlib.sha256(content).hexdigest(): known(content) for content in map(drawn, range(24))}


def content(number: int) -> bytes:
    return list(pool().values())[number].content


@contextmanager
def lean() -> Iterator[None]:
    """What stands in for costly parts; see the top of this file."""
    real_load = cache(encoder.load_encoder)

    def with_config(verb: str, words: list[str]) -> int:
        labels = {"promise": replace(composed().promise, num_labels=99)} if verb in ("certify", "calibrate") else {}
        return cli.run_verb(verb, replace(config_of(words), **labels, observe="observe=true" in words))

    def no_page(judged: Any, config: Any) -> Path:
        return judged.lot.out / "report"

    with ExitStack() as stack:
        stack.enter_context(patch("stylegate.cli.compose_and_run", with_config))
        stack.enter_context(patch("eval.gate.write_reports", no_page))
        stack.enter_context(patch("eval.certify.write_reports", no_page))
        stack.enter_context(
            patch("eval.measuring.encoder.load_encoder", lambda *of: real_load(*of)._replace(domain=None))
        )
        stack.enter_context(patch("eval.promise.envelope.DRAWS", 200))
        stack.enter_context(patch("sys.stdin", io.StringIO()))
        yield


def config_of(words: list[str]) -> Any:
    """The configuration that `key=value` words of text values lead to."""
    return replace(composed(), **dict(word.split("=", 1) for word in words))


@cache
def composed() -> Any:
    """The configuration of a verb without words."""
    import hydra
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=cli.configuration.Config)
    with hydra.initialize_config_dir(str(cli.configuration.CONF), version_base="1.3"):
        return configcheck.checked_config(hydra.compose("config"), [])


class Lot:
    """A folder of pictures, or the images of a planned batch; and what people said of it, under which policy."""

    def __init__(self, images: Path, out: Path, planned: bool) -> None:
        self.images, self.out, self.planned = images, out, planned
        self.decisions: dict[tuple[str, str], str] = {}  # (policy, sha256) -> the last decision
        self.firm: dict[tuple[str, str], str] = {}  # the same, without those of people who were unsure
        self.labels: dict[tuple[str, str], str] = {}  # of audits
        self.policy = ""  # of the last verdicts
        self.calibrated_by: list[str] = []  # the word that named a calibration elsewhere
        self.calibration = ""  # sha256 of the calibration that the last verdicts rest on
        self.observed = False
        self.judged: list[str] = []  # sha256 of the files that the last verdicts are of

    @property
    def words(self) -> list[str]:
        return [f"batch={self.out.name}"] if self.planned else [f"images={self.images}", f"out={self.out}"]

    def files(self) -> list[Path]:
        return sorted(self.images.iterdir())

    def path(self, number: int) -> Path:
        paths = self.files()
        return paths[number % len(paths)]

    def digests(self) -> list[str]:
        return [files.sha256_of_file(path) for path in self.files()]


PICKS, CONTENTS, WHERE = st.integers(0, 9), st.integers(0, 23), st.sampled_from(["lot", "lot", "batch"])
NAMED = st.sampled_from(list(POLICIES))
MEANWHILE = st.none() | st.sampled_from(["v1", "whole", "soft", "edit"])
LOTS = st.lists(CONTENTS, min_size=6, max_size=8, unique=True)
LIKE_NAMES = [os.fsdecode(b"a\xff.png"), "a\\xff.png"]  # they read the same once a byte is escaped
ODD_NAMES = [*LIKE_NAMES[: 1 if "A6" in OPEN else 2], "x.jfif", "nameless", "x.odd", "=x.png", "[x].png", "B.PNG"]


class GateMachine(RuleBasedStateMachine):
    """Rules are verbs and meddling; each verb's outcome is compared with the oracle where it is called."""

    counts: ClassVar[Counter] = Counter()  # over all sequences, so that a test can see that something happened
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).steps = 0
        self.root, self.stack, self.between = Path(tempfile.mkdtemp()), ExitStack(), None
        self.stack.callback(shutil.rmtree, self.root, True)
        self.stack.callback(os.chdir, Path.cwd())
        real = files.exclusive_lock

        @contextmanager
        def only_one(target: Path) -> Iterator[None]:
            """Before the first lock of a verb, what another process does meanwhile."""
            between, self.between = self.between, None
            if between:
                between()
            with real(target):
                yield

        for name in ("exports", "batches"):
            self.stack.enter_context(patch.object(files, name.upper(), self.root / name))
        self.stack.enter_context(patch.object(files, "exclusive_lock", only_one))
        (self.root / "cwd").mkdir()
        os.chdir(self.root / "cwd")
        (self.root / "policies").mkdir()
        for name, policy in POLICIES.items():
            (self.root / "policies" / f"{name}.yaml").write_text(policy.text())

    def teardown(self) -> None:
        self.stack.close()

    @initialize(chosen=LOTS, drawn=LOTS)
    def begin(self, chosen: list[int], drawn: list[int]) -> None:
        self.lots = {
            "lot": Lot(self.root / "lot", self.root / "out", False),
            "batch": Lot(self.root / "batches" / "plan" / "images", self.root / "batches" / "plan", True),
        }
        for lot in self.lots.values():
            lot.images.mkdir(parents=True)
        for i, number in enumerate(chosen):
            (self.lots["lot"].images / f"{i}.png").write_bytes(content(number))
        batch = self.lots["batch"]
        for i, number in enumerate(drawn[:6]):
            (batch.images / f"{i // 2:05d}-{i % 2}.png").write_bytes(content(number))
        write_plan(batch.out, [PlanSlot(slot=i, prompt="a thing", seed=i, traits={}) for i in range(3)])
        batch_record(wanted=3).write_json_file(batch.out / "batch.json")

    # What the oracle says.

    def allowed(self, lot: Lot, sha256: str, name: str) -> set[str]:
        """The verdicts that a picture may have under this policy, by its scores and by what people said of it."""
        policy, verdict = POLICIES[name], pool()[sha256].verdict(POLICIES[name].lines)
        found = {verdict}
        decision = lot.decisions.get((name, sha256))
        if verdict == "review" and decision == "accept":
            found = {"accept"}
        if verdict in ("review", "accept") and decision in ("reject", "unsure"):
            found = {"reject" if decision == "reject" else "review"}
        if "accept" in found and lot.labels.get((name, sha256)) == "reject":
            found = {"reject"}
        if "accept" in found and any(under == name for under, _ in lot.labels):
            found |= {"review"}  # outside the part of the lot that is certified
        said = [*lot.firm.items(), *lot.labels.items()]
        elsewhere = any(of == sha256 and under != name and said == "reject" for (under, of), said in said)
        if found & {"accept", "review"} and elsewhere:  # to reject reaches other policies: somebody has to look again
            looked = decision == "accept" or (name, sha256) in lot.labels
            found = found | {"review"} if looked else found - {"accept"} | {"review"}
        if found & {"accept", "review"} and "distinct" in policy.checks:
            found |= {"reject"}
        if "accept" in found and (lot.planned or policy.calibrated):
            found |= {"reject", "review"}  # of two attempts one leaves; lines that come from labels
        return found

    # Verbs.

    def call(self, *words: str) -> tuple[int, str]:
        said = io.StringIO()
        type(self).steps += 1
        with redirect_stdout(said), redirect_stderr(said):
            code = cli.main(list(words))
        self.between = None
        assert code in (0, 2, 10, 11, 12, 13), said.getvalue()
        self.counts[words[0], code] += 1
        return code, said.getvalue()

    def policy_word(self, name: str) -> str:
        return "policy=default" if name == "default" else f"policy={self.root / 'policies' / name}.yaml"

    def judge(self, lot: Lot, name: str, *more: str, verb: str = "gate") -> tuple[int, str]:
        """A verb that may write verdicts; if it did, they are what the oracle allows."""
        before = stamp(lot.out / "gate.json")
        code, text = self.call(verb, *lot.words, self.policy_word(name), *more)
        if stamp(lot.out / "gate.json") != before:
            lot.policy, lot.observed, lot.judged = name, "observe=true" in more, lot.digests()
            lot.calibrated_by = [word for word in more if word.startswith("calibration=")]
            place = Path(lot.calibrated_by[0].split("=")[1]) if lot.calibrated_by else lot.out / "calibration.json"
            lot.calibration = files.sha256_of_file(place) if place.exists() else ""
        return code, text

    def check_verdicts(self, lot: Lot) -> None:
        outcome, rows = json.loads((lot.out / "gate.json").read_text()), files.read_jsonl(lot.out / "verdicts.jsonl")
        counts, digests = outcome["counts"], lot.digests()
        assert counts["in"] == len(rows) == sum(counts[v] for v in ("accept", "review", "reject", "error"))
        assert Counter(row["sha256"] for row in rows) == Counter(digests), "each file is judged, once"
        for row in rows:
            allowed = self.allowed(lot, row["sha256"], lot.policy)
            assert row["verdict"] in allowed, f"{row['file']} is {row['verdict']} under {lot.policy}, not {allowed}"

    @rule(where=WHERE, name=NAMED)
    def gate(self, where: str, name: str) -> None:
        lot = self.lots[where]
        code, text = self.judge(lot, name)
        assert code != 2 or name == "warn" or "copies of others" in text, text
        if code != 2:
            self.check_verdicts(lot)

    @rule(where=WHERE, name=NAMED)
    def observe(self, where: str, name: str) -> None:
        self.judge(self.lots[where], name, "observe=true")

    @rule(where=WHERE, name=NAMED)
    def judge_in_training(self, where: str, name: str) -> None:
        """As training judges a checkpoint's pictures: nobody is asked, and what was not asked is not accepted."""
        lot, policy = self.lots[where], POLICIES[name]
        config = config_of([*lot.words, self.policy_word(name)])
        try:
            verdicts = judge(config, read_lot(config), quiet=True).verdicts
        except DataError:
            return
        for verdict in verdicts:
            accepted = not policy.calibrated and pool()[verdict.sha256].verdict(policy.lines) == "accept"
            assert verdict.verdict != "accept" or accepted, "accepted in training, and not by all of the policy"

    @rule(
        where=WHERE,
        name=NAMED,
        verdict=st.sampled_from(["accept", "accept", "reject", "unsure"]),
        picks=st.sets(PICKS, min_size=1),
    )
    def decide(self, where: str, name: str, verdict: str, picks: set[int]) -> None:
        """A person looked at some pictures that stand in review, or at all of them."""
        lot = self.lots[where]
        given = list(dict.fromkeys(files.sha256_of_file(lot.path(number)) for number in picks))
        path = self.root / "decisions.csv"
        path.write_text("sha256,verdict,who,why\n" + "".join(f"{s},{verdict},anna,{self.steps}\n" for s in given))
        code, _ = self.judge(lot, name, f"decisions={path}")
        if code != 2:
            lot.decisions |= {(name, sha256): verdict for sha256 in given}
            lot.firm |= {(name, sha256): verdict for sha256 in given if verdict != "unsure"}
            self.check_verdicts(lot)

    @rule(
        where=WHERE,
        name=st.sampled_from(["v1", "v2", "v1", "v2", "soft", "contrast"]),
        labelled=st.integers(0, 9),
        bad=PICKS,
    )
    def certify(self, where: str, name: str, labelled: int, bad: int) -> None:
        """Somebody audits the lot: accepts all but one, or stops early."""
        lot, sheet = self.lots[where], self.lots[where].out / "audit.csv"
        sheet.unlink(missing_ok=True)
        code, _ = self.judge(lot, name, verb="certify")
        if sheet.exists() and labelled:
            given = fill(sheet, labelled, lambda i: "reject" if i == bad else "accept")
            code, _ = self.judge(lot, name, f"decisions={sheet}", verb="certify")
            if code != 2:
                lot.labels |= {(name, s): v for s, v in given.items()}
        if code == 0:
            self.check_certificate(lot, lot.out / "certificate.json", name)
            self.check_verdicts(lot)

    def check_certificate(self, lot: Lot, path: Path, name: str) -> None:
        for row in json.loads(path.read_text())["labels"]:
            assert lot.labels.get((name, row["sha256"])) == row["verdict"], f"a label was not given under {name}"

    @rule(where=WHERE, bad=PICKS)
    def calibrate(self, where: str, bad: int) -> None:
        lot, sheet = self.lots[where], self.lots[where].out / "calibrate.csv"
        sheet.unlink(missing_ok=True)
        self.call("calibrate", *lot.words, self.policy_word("calibrated"))
        if sheet.exists():
            given = fill(sheet, 99, lambda i: "reject" if i == bad else "accept")
            code, _ = self.call("calibrate", *lot.words, self.policy_word("calibrated"), f"decisions={sheet}")
            if code != 2:
                lot.labels |= {("calibrated", sha256): verdict for sha256, verdict in given.items()}

    @rule(where=WHERE, signed=st.booleans())
    def calibrate_elsewhere(self, where: str, signed: bool) -> None:
        """The calibration lies elsewhere. Before the export somebody may put another name under its labels."""
        lot, place = self.lots[where], self.root / "elsewhere.json"
        self.calibrate(where, 99)
        if not (lot.out / "calibration.json").exists():
            return
        shutil.copyfile(lot.out / "calibration.json", place)
        self.judge(lot, "calibrated", f"calibration={place}")
        if signed:
            held = {name: value for name, value in json.loads(place.read_text()).items() if name != "sha256"}
            held["labels"] = [label | {"who": "bob"} for label in held["labels"]]
            files.write_json(place, held | {"sha256": files.canonical_sha256(held)})
        self.export(where, None, 0, 0)

    @rule(
        where=WHERE, between=st.none() | st.sampled_from(["v1", "whole", "soft", "edit"]), pick=PICKS, number=CONTENTS
    )
    def export(self, where: str, between: str | None, pick: int, number: int) -> None:
        """Export; meanwhile another process may gate, or somebody edits a picture."""
        lot = self.lots[where]
        if between == "edit":
            self.between = lambda: self.edit(where, pick, number)
        elif between:
            self.between = lambda: self.judge(lot, between) and None
        before = set(self.packages())
        code, text = self.call("export", *lot.words, *MADE_BY_A_MODEL, f"name={where}")
        assert "the package would not verify" not in text, "only the last guard stopped what was chosen to leave"
        if code == 2 or not (found := re.search(r"^export: (\S+-v\d+)( |$)", text, re.M)):
            assert set(self.packages()) == before, "nothing half-written"
            return
        self.check_package(lot, Path(found[1]))

    def packages(self) -> list[Path]:
        return sorted(path for path in files.EXPORTS.glob("*") if (path / "data" / "provenance.json").exists())

    def check_package(self, lot: Lot, package: Path) -> None:
        self.counts["package", lot.policy] += 1
        rows = read_picture_rows(package)
        assert not lot.observed, "verdicts that were only observed left"
        whole = POLICIES[lot.policy].whole
        measured = [scores for s in lot.judged if whole and (scores := pool()[s].scores)]
        assert all(scores[whole] >= POLICIES[lot.policy].lines[whole][0] for scores in measured), "a failed lot left"
        for row in rows:
            assert "accept" in self.allowed(lot, row["judged_sha256"], lot.policy), f"{row} left under {lot.policy}"
            assert files.sha256_of_file(package / "data" / row["file_name"]) == row["sha256"]
        if lot.planned and "A6" not in OPEN:
            slots = [attempt_and_slot(Path(row["file_name"]).name)[1] for row in rows]
            assert len(slots) == len(set(slots)), "two attempts of one slot left"
        used = package / "data" / "calibration.json"
        assert not used.exists() or files.sha256_of_file(used) == lot.calibration, (
            "its calibration is not the one that judged"
        )
        proof = package / "data" / "certificate.json"
        if proof.exists():
            self.check_certificate(lot, proof, lot.policy)
        assert proof.exists() or not POLICIES[lot.policy].required or POLICIES[lot.policy].calibrated, "without proof"
        code, text = self.call("verify", str(package))
        assert code == 0 and (proof.exists() or POLICIES[lot.policy].calibrated or not says_proven(text)), text
        mine = {row["judged_sha256"] for row in rows}
        # What was edited since may be a better copy of what left, and moves a calibrated line.
        policy = POLICIES[lot.policy]
        other = bool("distinct" in policy.checks or policy.calibrated) and lot.judged != lot.digests()
        self.judge(lot, lot.policy, *lot.calibrated_by)
        now = files.read_jsonl(lot.out / "verdicts.jsonl")
        accepted = {row["sha256"] for row in now if row["verdict"] == "accept"}
        assert mine <= accepted or other, "a fresh gate under the same arguments does not accept what left"

    @precondition(lambda self: self.packages() and "A5" not in OPEN)
    @rule(pick=PICKS, state=st.sampled_from(["certified", "valid"]))
    def forge(self, pick: int, state: str) -> None:
        """Somebody writes a promise into a package, takes its proof out and makes the manifest anew."""
        package = self.packages()[pick % len(self.packages())]
        record = provenance_of(package)
        record["judged_by"]["promise"] = {"state": state, "says": "at most 0.1% of what is exported are rejects"}
        files.write_json(package / "data" / "provenance.json", record)
        for proof in ("certificate.json", "calibration.json", "pool.json"):
            (package / "data" / proof).unlink(missing_ok=True)
        made_anew(package)
        code, text = self.call("verify", str(package))
        shutil.rmtree(package)
        assert code == 2 or not says_proven(text), text

    @precondition(lambda self: self.packages())
    @rule(pick=PICKS)
    def gate_own_export(self, pick: int) -> None:
        """The pictures of a package are no copies of the package: it changes nothing whether that is there."""
        package, found = self.packages()[pick % len(self.packages())], []
        mine, alone = self.root / "mine", self.root / "alone"
        for place in (mine, alone):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(package / "data" / "images", mine)
        shutil.copytree(package, alone / package.name)
        for exports in (alone, self.root / "nothing"):
            with patch.object(files, "EXPORTS", exports):
                words = [f"images={mine}", f"out={self.root / 'own'}", self.policy_word("distinct")]
                assert self.call("gate", *words)[0] != 2
            rows = files.read_jsonl(self.root / "own" / "verdicts.jsonl")
            found.append({row["file"]: row["verdict"] for row in rows})
        assert found[0] == found[1], "one's own export is a copy of itself"

    @precondition(lambda self: self.packages())
    @rule()
    def move(self) -> None:
        """The lot's folder has another name: its verdicts are the same."""
        lot = self.lots["lot"]
        if self.judge(lot, "distinct")[0] == 2:
            return
        before = {row["file"]: row["verdict"] for row in files.read_jsonl(lot.out / "verdicts.jsonl")}
        lot.images = lot.images.rename(lot.images.with_name(f"{lot.images.name}x"))
        self.judge(lot, "distinct")
        now = {row["file"]: row["verdict"] for row in files.read_jsonl(lot.out / "verdicts.jsonl")}
        assert now == before, "verdicts depend on where the folder lies"

    @rule(where=WHERE)
    def stray_package(self, where: str) -> None:
        """An empty folder among the packages stops no gate."""
        place = files.EXPORTS / "other-v1"
        place.mkdir(parents=True, exist_ok=True)
        self.gate(where, "contrast")
        place.rmdir()

    @rule(where=WHERE)
    def locked(self, where: str) -> None:
        """Another process is at work on the lot: nothing is written."""
        lot = self.lots[where]
        before = stamp(lot.out / "gate.json")
        with files.exclusive_lock(lot.out):
            assert self.call("gate", *lot.words, self.policy_word("soft"))[0] == 2
        assert stamp(lot.out / "gate.json") == before

    # Meddling.

    @rule(where=WHERE, pick=PICKS, number=CONTENTS)
    def edit(self, where: str, pick: int, number: int) -> None:
        self.lots[where].path(pick).write_bytes(content(number))

    @rule(where=WHERE, picks=st.tuples(PICKS, PICKS))
    def swap(self, where: str, picks: tuple[int, int]) -> None:
        one, other = (self.lots[where].path(pick) for pick in picks)
        if one != other:
            kept = one.rename(one.with_name("swapped"))
            other.rename(one)
            kept.rename(other)

    @rule(pick=PICKS, names=st.sets(st.sampled_from(ODD_NAMES), min_size=1, max_size=2))
    def copy(self, pick: int, names: set[str]) -> None:
        """The picture stands there under other names, too."""
        source = self.lots["lot"].path(pick)
        for name in names:
            if name != source.name:
                shutil.copyfile(source, source.with_name(name))

    @precondition(lambda self: "A6" not in OPEN)
    @rule(picks=st.tuples(PICKS, PICKS))
    def like_names(self, picks: tuple[int, int]) -> None:
        """Two pictures whose names read the same once a byte is escaped."""
        lot = self.lots["lot"]
        contents = [lot.path(pick).read_bytes() for pick in picks]
        for name, held in zip(LIKE_NAMES, contents, strict=True):
            (lot.images / name).write_bytes(held)

    @rule(pick=PICKS, name=st.sampled_from(ODD_NAMES))
    def rename(self, pick: int, name: str) -> None:
        source = self.lots["lot"].path(pick)
        source.replace(source.with_name(name))

    @rule(where=WHERE, pick=PICKS)
    def touch(self, where: str, pick: int) -> None:
        os.utime(self.lots[where].path(pick), ns=(1, 1))

    @rule(where=WHERE)
    def copied_store(self, where: str) -> None:
        """Somebody opens the labels with a tool of SQLite, which writes the file anew: nobody's word is lost by it."""
        path = self.lots[where].out / "labels.sqlite"
        if path.exists():
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("VACUUM")

    @rule()
    def file_named_default(self) -> None:
        """Whoever may put a file into the working directory."""
        Path("default").write_text(LAX)
        Path("default.yaml").write_text(LAX)


def says_proven(text: str) -> bool:
    """Whether `verify` prints a promise as one that holds."""
    return re.search(r"; (certified|valid): ", text) is not None


def stamp(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_mtime_ns, path.stat().st_ino) if path.exists() else None


def fill(sheet: Path, count: int, verdict: Callable[[int], str]) -> dict[str, str]:
    """Fill in the first rows of a worksheet; the verdicts by sha256."""
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows[:count]):
        row |= {"verdict": verdict(i), "who": "anna"}
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {row["sha256"]: row["verdict"] for row in rows[:count]}


def search(count: int, seed: int = 0, shrink: bool = True) -> None:
    """Run `count` sequences; the same ones for a seed. Raises AssertionError with one that breaks a rule, in its notes.

    Without `shrink` the sequence is the first that was found, not the shortest.
    """
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    chosen = settings(
        max_examples=count,
        stateful_step_count=STEPS,
        phases=phases,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    with lean():
        run_state_machine_as_test(hypothesis.seed(seed)(GateMachine), settings=chosen)
