"""What W&B is told of a gate: every figure, table, alert and link of the chain; and that none of it can hurt."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from eval.judging.record import GateRecord
from eval.lot.lot import Lot
from eval.report import mirror
from stylegate import files, lineage
from tests.lots import gate_record, verdict

DRIFT = "version: 1\nchecks: {contrast: {reject_below: 1}}\nbatch: {acceptance: {warn_below: 1.1}}\n"


class Told:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str):
        return lambda *arguments, **options: self.calls.append((name, arguments, options))

    def of(self, name: str) -> list[tuple]:
        return [arguments for called, arguments, _ in self.calls if called == name]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    tracker = Told()
    monkeypatch.setattr(mirror, "make_tracker", lambda *_, **__: tracker)
    return tracker


def test_a_gate_tells_all_that_its_files_hold(run, told: Told, judged: Path, tmp_path: Path) -> None:
    (judged / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    code, _ = run("gate", f"images={judged}", "brand=neon", f"out={out}", "tracker=wandb", "tracker.mode=offline")
    assert code == 10
    counts = json.loads((out / "gate.json").read_text())["counts"]
    (values,) = [arguments[0] for arguments in told.of("log_values")]
    assert values["gate/accept"] == counts["accept"] / 33 and values["gate/error"] == 1 / 33
    assert values["reasons/decode"] == 1
    names = {arguments[0] for arguments in told.of("log_histogram")}
    assert {"scores/style", "references/style", "scores/sharpness"} <= names
    ((title, columns, rows),) = told.of("log_table")
    assert title == "gate/verdicts" and len(rows) == 32 and columns[1] == "picture", "an error cannot be shown"
    assert rows[0][1].size == (64, 64)
    assert told.of("set_summary_values")[0][0]["promise/state"] == "none"
    assert [(a[0].split("-")[0], a[1]) for a in told.of("log_artifact")] == [("batch", "batch")]
    assert told.of("finish_tracking") == [()]


def test_the_chain_is_kept_without_a_mirror(run, trained: list[str]) -> None:
    """Brand set and LoRA used; batch, certificate and package made: in the ledger, whatever the tracker."""
    told = [*trained, "traits=collectible", "plan.num_images=4"]
    for verb in ("plan", "generate"):
        assert run(verb, *told)[0] == 0
    out = files.HOME / run("gate", *told)[1].splitlines()[-1]
    kinds = [(row["kind"], row["type"]) for row in lineage.read_lineage(out)]
    assert set(kinds) >= {("use", "brand-set"), ("use", "lora"), ("make", "batch")}
    (lora,) = {row["sha256"] for row in lineage.read_lineage(out) if row["type"] == "lora"}
    run_folder = next(files.RUNS.glob("small-*"))
    assert lora in {row["sha256"] for row in lineage.read_lineage(run_folder) if row["type"] == "lora"}, (
        "the one that was made"
    )


def test_alerts(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCHES", tmp_path)
    lot = Lot(tmp_path, tmp_path / "new", [], {}, None, None)

    def outcome(accept: int, state: str = "none") -> GateRecord:
        return gate_record(
            counts={"in": 100, "accept": accept, "review": 0, "reject": 100 - accept, "error": 0},
            batch=[{"measure": "variety", "value": 0.4, "state": "warn", "says": "variety is .4"}],
            promise={"state": state, "says": "another LoRA"},
        )

    for i, accept in enumerate((90, 92, 88)):
        (tmp_path / str(i)).mkdir()
        outcome(accept).write_json_file(tmp_path / str(i) / "gate.json")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "gate.json").write_text("{")
    titles = [title for title, _ in mirror.gate_alerts(lot, outcome(70, "stale"))]
    assert titles == ["new: promise stale", "new: variety", "new: fewer accepted"]
    assert [title for title, _ in mirror.gate_alerts(lot, outcome(85))] == ["new: variety"]


def test_the_table_has_worst_borderline_and_random_pictures() -> None:
    verdicts = [
        verdict(file=f"{i:04d}.png", margin=float(m))
        for i, m in enumerate(np.random.default_rng(0).permutation(2000) - 1000)
    ]
    chosen = mirror.worst_borderline_and_random_verdicts([*verdicts, verdict(file="e", kind="error", margin=None)])
    margins = sorted(found.margin or 0.0 for found in chosen)
    assert len(chosen) == mirror.MAX_ROWS == len({found.file for found in chosen})
    assert margins[: mirror.MAX_ROWS // 3] == [float(m) for m in range(-1000, -1000 + mirror.MAX_ROWS // 3)]
    assert set(map(float, range(-80, 81))) <= set(margins) and max(margins) > 500


def test_the_table_shows_the_pictures_that_were_judged(tmp_path: Path) -> None:
    """16 bits, orientation and transparency as the one decoder reads them, small; not a file that changed since."""
    gray = np.full((600, 300), 257 * 80, np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray16.png")
    turned = Image.new("RGB", (64, 32), "navy")
    turned.save(tmp_path / "turned.jpg", exif=b"Exif\0\0" + orientation(6))
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "changed.png")
    paths = sorted(tmp_path.iterdir())
    verdicts = [verdict(file=path.name, sha256=files.sha256_of_file(path), margin=0.0) for path in paths]
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "changed.png")
    lot = Lot(tmp_path, tmp_path, [(path.name, path) for path in paths], {}, None, None)
    shown = {row[0]: row[1] for row in mirror.verdict_table_rows(lot, verdicts, "#00ff00")}
    assert shown.keys() == {"gray16.png", "turned.jpg", "clear.png"}
    assert shown["gray16.png"].size == (128, 256) and shown["gray16.png"].getpixel((5, 5)) == (80, 80, 80)
    assert shown["turned.jpg"].size == (32, 64) and shown["clear.png"].getpixel((5, 5)) == (0, 255, 0)


def orientation(value: int) -> bytes:
    """EXIF data that holds nothing but an orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_no_error_of_the_mirror_reaches_the_gate(run, judged: Path, tmp_path: Path, monkeypatch) -> None:
    def broken(*_, **__) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(mirror, "record_lineage_of_lot", broken)
    code, text = run("gate", f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}")
    assert code in (0, 10, 11)
    assert "could not be logged to the tracker (RuntimeError: injected); the verdicts stand" in text
