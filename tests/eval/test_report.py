"""The report: the slider tells what other lines would do, the promise and its labels, copies and their twins, costs."""

import csv
import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.judging.record import PromiseState
from eval.judging.verdicts import AcceptingDecision, Verdict, WaivedReason, make_reason
from eval.lot import cost
from eval.lot.lot import Lot
from eval.policy.model import MARGIN, Policy, PolicyCheck, Promise
from eval.promise import envelope
from eval.promise.calibration import Calibration, ScoredLabel
from eval.promise.labels import LabelName
from eval.report import galleries, slider
from eval.report import page as report
from eval.report.charts import score_histogram_svg
from eval.report.thumbnails import DIGITS, ReportThumbnails
from eval.scorers import SCORES
from stylegate import files
from stylegate.cli import main
from stylegate.config import Config
from tests import lots

NEON = files.ROOT / "data" / "brands" / "neon"
CHECKS = """
  contrast: {reject_below: 6}
  style: {reject_below: {spreads: -4}, review_below: {spreads: -1}}
  distinct: {reject_below: {copies: 0.95}}
  novelty: {reject_below: {quantile: 0}}
"""
SCRIPT = "</script><script>document.title='owned'</script>"
HOSTILE = [f'">{SCRIPT}.png', "' onerror=document.title='owned' x='.png", '" onerror="document.title=`owned`.png']


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Neon's held-out pictures, some under hostile names; a copy, a training picture, a blank, a torn one."""
    place = tmp_path_factory.mktemp("report") / "lot"
    shutil.copytree(NEON / "validation", place)
    (place / "metadata.jsonl").unlink()
    for number, name in enumerate(HOSTILE, start=34):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / f"00{number}.png").rename(place / name)
    shutil.copy(place / "0040.png", place / "zz <i>'same\".png")
    with Image.open(NEON / "train" / "0003.png") as known:
        known.convert("RGB").point(lambda level: level * 1.03).save(place / "zz-training.png")
    Image.new("RGB", (64, 64), "navy").save(place / "blank.png")
    (place / "torn.png").write_bytes((place / "0041.png").read_bytes()[:300])
    return place


@pytest.fixture(scope="module")
def plain(lot: Path) -> Path:
    """Judged by fixed lines: the slider moves all of them."""
    return gated(lot, "plain")


@pytest.fixture(scope="module")
def labelled(lot: Path) -> Path:
    """Judged by a calibrated margin, 24 labels of which are of this lot."""
    return with_labels(lot, "labelled", "margin: calibrated")


def gated(lot: Path, name: str, calibrated: str = "") -> Path:
    policy = lot.parent / f"{name}.yaml"
    policy.write_text(f"version: 1\nchecks:{CHECKS}  {calibrated}\npromise: {{alpha: 0.2, delta: 0.1}}\n")
    assert main(["gate", *words(lot, name)]) in (10, 11, 13)
    return lot.parent / name


def with_labels(lot: Path, name: str, calibrated: str) -> Path:
    """The third label of each ten is a reject."""
    out = gated(lot, name, calibrated)
    asked = ["calibrate", *words(lot, name), "promise.num_labels=24"]
    assert main(asked) == 13
    rows = list(csv.DictReader((out / "calibrate.csv").open()))
    given = [f"{row['sha256']},{'reject' if i % 10 == 3 else 'accept'},kim" for i, row in enumerate(rows)]
    (lot.parent / "labels.csv").write_text("\n".join(["sha256,verdict,who", *given]))
    assert main([*asked, f"decisions={lot.parent / 'labels.csv'}"]) in (0, 13)
    return gated(lot, name, calibrated)


def words(lot: Path, name: str) -> list[str]:
    return [f"images={lot}", "brand=neon", f"out={lot.parent / name}", f"policy={lot.parent / name}.yaml"]


def page_of(out: Path) -> str:
    return (out / "report" / "index.html").read_text()


def data_of(out: Path) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page_of(out), re.DOTALL)
    assert found and "<" not in found[1], "nothing in the data can end its script"
    return json.loads(found[1])


def verdicts_of(out: Path) -> list[dict]:
    return files.read_jsonl(out / "verdicts.jsonl")


def accepts(verdict: dict, t: float) -> bool:
    """With all lines moved by t spreads: slow and obvious."""
    by_scores = all(r["check"] in CHECKS for r in verdict["reasons"])
    return verdict["verdict"] != "error" and by_scores and verdict["margin"] >= t


def test_a_run_without_stats_has_its_samples_and_no_curve(tmp_path: Path) -> None:
    run = files.RUNS / "without-stats"
    (run / "samples").mkdir(parents=True, exist_ok=True)
    record = lots.batch_record(1)
    record = record.model_copy(update={"words": record.words.model_copy(update={"run": run.name})})
    lot = Lot(tmp_path, tmp_path, [], {}, None, record)
    assert report.training_samples_and_loss_curve_data(lot, tmp_path) is None
    (run / "samples" / "grid.png").write_bytes(b"a grid")
    assert report.training_samples_and_loss_curve_data(lot, tmp_path) == {"grid": "samples.png", "curve": None}
    assert (tmp_path / "samples.png").read_bytes() == b"a grid"
    files.write_jsonl(run / "stats.jsonl", [{"step": step, "loss": 1 / step} for step in range(1, 4)])
    found = report.training_samples_and_loss_curve_data(lot, tmp_path)
    assert found and "<svg" in found["curve"]


def test_the_slider_says_what_other_lines_would_accept(plain: Path) -> None:
    data, verdicts = data_of(plain), verdicts_of(plain)
    positions = data["positions"]
    assert 100 <= len(positions) <= 250 and positions == sorted(positions)
    assert positions[data["start"]] == 0 and data["score"] == "margin" and data["bound"] is None
    assert data["accepted"] == [sum(accepts(v, t) for v in verdicts) for t in positions]
    assert data["accepted"][data["start"]] == sum(v["verdict"] == "accept" for v in verdicts)
    assert data["accepted"][-1] == 0 < data["accepted"][data["start"]] < data["accepted"][0]
    where, count, says = data["texts"][-1]
    assert (
        where == f"Stricter: all limits higher by {positions[-1]:.3g}" and count == "0 of 36 pictures accepted (0.0%)"
    )
    assert {row[2] for row in data["texts"]} == {slider.NO_LABELS}
    assert data["texts"][data["start"]][0] == "The limits of the policy" and says


def test_the_bound_at_each_position_is_the_envelopes(labelled: Path) -> None:
    data, made = data_of(labelled), json.loads((labelled / "calibration.json").read_text())
    bad = {row["sha256"]: row["verdict"] != "accept" for row in made["labels"]}
    mine = {v["sha256"]: v for v in reversed(verdicts_of(labelled))}  # of a picture and its copy, the picture
    pool = [mine[sha256] for sha256 in made["pool"]]
    scores = np.array([v["margin"] for v in pool])
    known = np.array([v["sha256"] in bad for v in pool])
    rejects = np.array([bad.get(v["sha256"], False) for v in pool])
    assert known.sum() == 24 and rejects.sum() == 3

    expected, accepted = [], []
    for t in data["positions"]:
        expected.append(
            envelope.reject_share_bounds_at_thresholds(scores, known, rejects, ~rejects, np.array([t]), 0.2, 0.1)[0]
        )
        accepted.append(int(((scores >= t) & ~rejects).sum()))
    assert data["bound"] == pytest.approx(expected, abs=1e-6) and data["accepted"] == accepted
    assert data["score"] == "margin" and len(set(data["bound"])) > 3
    for bound, count, row in zip(expected, accepted, data["texts"], strict=True):
        if count and bound < 1:
            share = math.ceil(bound * 1000 - 1e-6) / 10  # never less than what is proven
            wanted = f"At most {share:.1f}% of the accepted pictures are rejects (90% confidence, 24 labels)."
            assert row[2] == wanted
    nothing = {row[2] for row, n in zip(data["texts"], accepted, strict=True) if not n}
    assert nothing == {"This limit accepts no picture."}


def test_the_line_in_force_is_where_the_slider_starts(labelled: Path) -> None:
    data = data_of(labelled)
    assert data["accepted"][data["start"]] == sum(v["verdict"] == "accept" for v in verdicts_of(labelled))
    line = {r["threshold"] for v in verdicts_of(labelled) for r in v["reasons"] if r["check"] == MARGIN}
    if line:
        assert data["texts"][data["start"]][0].endswith(", now in force") and data["positions"][data["start"]] in line


def test_a_calibrated_score_is_the_one_that_moves(lot: Path) -> None:
    out = with_labels(lot, "sharp", "sharpness: calibrated")
    data, rows = data_of(out), {row["file"]: row for row in sharpness_of(out)}
    free = [v for v in verdicts_of(out) if all(r["check"] == "sharpness" for r in v["reasons"])]
    assert data["score"] == "sharpness"
    assert data["accepted"] == [sum(rows[v["file"]]["sharpness"] >= t for v in free) for t in data["positions"]]
    assert "moves the limit of <b>sharpness</b>" in page_of(out)


def sharpness_of(out: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(out / "scores.parquet", columns=["file", "sharpness"]).to_pylist()


def verdict(kind: str, *reasons: str, margin: float | None, **more: Any) -> Verdict:
    found = [make_reason(check, kind, 0.4, 0.5) for check in reasons]
    return lots.verdict(*found, kind=kind, margin=margin, **more)


WAIVED = WaivedReason(
    check="novelty", score=0.1, threshold=0.2, verdict="reject", owner="ada", why="our logo", expires="2027-01-31"
)
POLICY = lots.policy()


def moved(verdicts: list[Verdict], policy: Policy = POLICY, line: float | None = 0.0) -> slider.ThresholdSlider:
    found = slider.make_slider(verdicts, [v.margin for v in verdicts], policy, line)
    assert found is not None
    return found


def test_what_no_line_decided_stays_as_it_is() -> None:
    outside = verdict("review", "style", "style-unreadable", margin=3.0)
    given = [
        verdict("accept", margin=2.0),
        verdict("reject", "style", margin=-1.0),
        verdict("review", "style", margin=-0.0),  # rounded up to the line that it fell below
        outside,
        verdict("reject", "person", margin=4.0),
        verdict("error", "decode", margin=None),
        verdict("accept", margin=-5.0, settled=AcceptingDecision(who="kim", why="", reasons=[])),
        verdict("accept", margin=-5.0, waived=[WAIVED]),
        verdict("accept", margin=None),
    ]
    found = moved(given)
    last = len(found.positions) - 1
    below = [found.positions[i] for i in found.last_accepting[1:3]]
    assert -1.02 < below[0] <= -1.0 and below[1] == found.positions[found.start - 1]
    assert 1.98 < found.positions[found.last_accepting[0]] <= 2.0
    assert found.last_accepting[3:] == [-1, -1, -1, last, last, last]
    assert found.accepted[found.start] == 4 and found.accepted[-1] == 3


def test_one_failure_far_below_does_not_stretch_the_slider() -> None:
    """Nobody means to accept it: the positions end four spreads below the limits in force."""
    above = [verdict("accept", margin=m) for m in (6.0, 7.0, 12.0)]
    found = moved([*above, verdict("reject", "style", margin=-2.0), verdict("reject", "style", margin=-100.0)])
    assert found.positions[0] == -slider.MAX_SPREADS and found.accepted[0] == 4
    far = verdict("reject", "style", margin=-10.0)
    assert slider.make_slider([far], [-10.0], POLICY, 0.0) is None, "no position would accept it"
    near = [verdict("reject", "style", margin=-0.1 * i) for i in range(1, 9)]
    assert moved([*near, far]).positions[0] >= -1.0


def test_a_line_from_labels_leaves_the_other_checks_alone() -> None:
    policy = lots.policy(checks={MARGIN: PolicyCheck.model_validate("calibrated")})
    given = [
        verdict("accept", margin=2.0),
        verdict("review", MARGIN, margin=0.5),
        verdict("reject", "style", margin=1.0),
    ]
    found = moved(given, policy, line=0.7)
    assert found.positions[found.start] == 0.7 and found.last_accepting[2] == -1 and found.accepted[found.start] == 1
    none_yet = moved(given[1:], policy, line=None)
    assert none_yet.start == len(none_yet.positions) - 1 and none_yet.accepted[none_yet.start] == 0
    assert slider.slider_position_texts(none_yet, None, 0, 0.1, ("here", "there"))[-1][0] == "No limit yet"
    assert slider.make_slider(given[2:], [1.0], policy, 0.7) is None, "nothing can be moved: no slider"


def test_what_people_accepted_is_not_said_of_the_limit() -> None:
    policy = lots.policy(checks={MARGIN: PolicyCheck.model_validate("calibrated")})
    by_person = AcceptingDecision(who="kim", why="", reasons=[])
    given = [verdict("accept", margin=m) for m in (2.0, 3.0)]
    found = moved([*given, *[verdict("accept", margin=-5.0, settled=by_person)] * 3], policy, line=0.7)
    bounds = np.full(len(found.positions), 0.04)
    texts = [row[1:] for row in slider.slider_position_texts(found, bounds, 24, 0.1, ("", ""))]
    assert texts[-1] == ["3 of 5 pictures accepted (60.0%)", "This limit accepts no picture; people accepted 3."]
    says = "At most 4.0% of the 2 pictures that the limit accepts are rejects (90% confidence, 24 labels)."
    assert texts[0] == ["5 of 5 pictures accepted (100.0%)", says]


def calibration(pool: list[str], scores: dict[str, float], verdict: LabelName) -> Calibration:
    """A calibration of this pool whose labelled pictures have these scores and all one verdict."""
    given = [
        ScoredLabel.model_construct(sha256=name, verdict=verdict, who="anna", why="", score=score)
        for name, score in scores.items()
    ]
    return Calibration.model_construct(pool=pool, labels=given)


def test_nothing_is_said_of_positions_beyond_the_labels() -> None:
    made = calibration(["a", "b"], {"a": 1.0}, "reject")
    found = moved([verdict("accept", margin=m) for m in (1.0, 2.0)])
    bounds = slider.reject_share_bounds_by_position(found, made, {"a": 1.0, "b": 2.0}, {"b"}, Promise())
    assert bounds[0] == 1 and slider.slider_position_texts(found, bounds, 1, 0.05, ("", ""))[0][2].startswith(
        "Nothing is promised here"
    )


def test_labels_of_another_lot_are_of_one_population_with_ours() -> None:
    """And what a person held back is no more counted among what leaves."""
    pool = {f"{i:02d}": float(i) for i in range(60)}
    labelled = {f"x{i:02d}": 2.0 * i for i in range(30)}
    made = calibration(sorted(labelled), labelled, "accept")
    ours = {name for name in pool if int(name) % 3}
    found = moved([verdict("accept", margin=x) for x in pool.values()])
    scores = np.array([*pool.values(), *labelled.values()])
    known, leaving = np.arange(90) >= 60, np.array([name in ours for name in [*pool, *labelled]])
    expected = envelope.reject_share_bounds_at_thresholds(
        scores, known, np.zeros(90, bool), leaving, found.positions, 0.3, 0.1
    )
    given = slider.reject_share_bounds_by_position(found, made, pool, ours, Promise(alpha=0.3, delta=0.1))
    assert given.tolist() == expected.tolist() and 0 < given[0] < 1


class Figures(HTMLParser):
    """Class of each gallery picture by its name; texts by id; scripts that a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.classes: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.scripts: list[str | None] = []
        self.markers: list[str | None] = []
        self.figure, self.open = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.open = given.get("id") or ""
        if tag == "figure":
            self.figure = given.get("class") or "" if "data-last" in given else "-"
        if tag == "img" and self.figure != "-":
            self.classes[given.get("alt") or ""] = self.figure
        if tag == "script":
            self.scripts.append(given.get("id"))
        if given.get("class") == "marker":
            self.markers.append(given.get("transform"))

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open, data)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[list[str]]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium on the PATH: the page's script is not run")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    options += " --disable-component-update --disable-dev-shm-usage --virtual-time-budget=2000 --dump-dom"
    yield [found, *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]


@pytest.mark.parametrize("t", [1.5, -2.0])
def test_in_a_browser_the_slider_dims_and_outlines(plain: Path, browser: list[str], t: float) -> None:
    address = (plain / "report" / "index.html").as_uri()
    done = subprocess.run([*browser, f"{address}#t={t}"], capture_output=True, text=True, timeout=120)
    shown, data = Figures(done.stdout), data_of(plain)
    i = int(np.argmin(np.abs(np.array(data["positions"]) - t)))
    assert abs(data["positions"][i] - t) < 0.05, "the link's t is on the slider"
    assert [shown.texts[name] for name in ("where", "accepts", "proof")] == data["texts"][i]
    assert shown.markers == [f"translate({i})"]

    verdicts = {v["file"]: v for v in verdicts_of(plain)}
    assert len(shown.classes) == len(verdicts) - 1, "all but the error"
    for name, marks in shown.classes.items():
        assert marks == ("in" if accepts(verdicts[name], data["positions"][i]) else "out"), name
    gained = [n for n, marks in shown.classes.items() if marks == "in" and verdicts[n]["verdict"] != "accept"]
    lost = [n for n, marks in shown.classes.items() if marks == "out" and verdicts[n]["verdict"] == "accept"]
    assert lost if t > 0 else gained
    assert shown.scripts == ["data", "slide"] and "owned" not in done.stdout.partition("</title>")[0]
    assert shown.classes.keys() >= set(HOSTILE)


def test_without_scripts_or_network_the_page_is_whole(plain: Path, labelled: Path) -> None:
    for out in (plain, labelled):
        page, data = page_of(out), data_of(out)
        shown = Figures(page)
        assert [shown.texts[name] for name in ("where", "accepts", "proof")] == data["texts"][data["start"]]
        assert len(shown.classes) == len(verdicts_of(out)) - 1 and set(shown.classes.values()) == {""}
        assert not re.search(r"https?:|url\(|@import|<link|src=\"//", page)
        assert shown.scripts == ["data", "slide"] and "owned" not in page.partition("</title>")[0]
        assert re.search(r'<input id="range"[^>]* hidden>', page)


def test_the_same_input_gives_the_same_bytes(lot: Path, labelled: Path) -> None:
    def held() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in sorted((labelled / "report").rglob("*")) if p.is_file()}

    before = held()
    gated(lot, "labelled", "margin: calibrated")
    assert held() == before and len(before) > 30


def test_thumbnails_are_used_again_only_where_they_hold(lot: Path, tmp_path: Path) -> None:
    names = ["0040.png", "0041.png", "0042.png"]
    digests = {name: files.sha256_of_file(lot / name) for name in names}

    def made(number: int, background: str = "#ffffff") -> ReportThumbnails:
        new = ReportThumbnails(tmp_path / str(number), tmp_path / str(number - 1), background)
        assert all(new.add_thumbnail(lot / name, sha256) for name, sha256 in digests.items())
        new.write_thumbnails_json()
        return new

    first = made(1)
    every, wanted = ReportThumbnails(tmp_path / "all", tmp_path, "#ffffff"), [(lot / n, digests[n]) for n in names]
    found = every.add_thumbnails([*wanted, (lot / names[0], "0" * 64), *wanted])
    assert found == [*first.digests, None, *first.digests] and every.digests == first.digests
    changed, gone, _ = (first.report / name for name in first.digests)
    changed.write_bytes((first.report / "pictures" / f"{digests[names[2]][:DIGITS]}.png").read_bytes())
    gone.unlink()
    second = made(2)
    assert [(second.report / name).stat().st_nlink for name in second.digests] == [1, 1, 2], "2: taken over"
    assert second.digests == first.digests, "drawn anew, the same bytes"
    assert made(3).reusable == first.digests and not made(4, "#000000").reusable
    assert first.add_thumbnail(lot / names[0], "0" * 64) is None, "not the picture that was judged"
    (tmp_path / "4" / "thumbnails.json").write_text("{")
    assert not made(5).reusable


def test_the_page_shows_references_and_says_each_reason_once(run, lot: Path, tmp_path: Path) -> None:
    """And it names folders, never where they lie."""
    place, references = tmp_path / "two", tmp_path / "our references"
    for folder, numbers in ((references, range(32)), (tmp_path / "same hand", range(32, 62)), (place, (62, 63))):
        folder.mkdir()
        for number in numbers:
            shutil.copy(sorted((NEON / "test").glob("*.png"))[number], folder)
    out = tmp_path / "out"
    words = [f"images={place}", f"references={references}", f"foreign={tmp_path / 'same hand'}", f"out={out}"]
    assert run("gate", *words)[0] in (10, 11)
    page = page_of(out)
    assert page.count(html.escape(galleries.OTHER_CHECKS["style-unreadable"])) == 1
    assert len(re.findall(r'<b class="review">style-unreadable</b>\s*</figcaption>', page)) == 2
    strip = page.partition("<h2>References · 32</h2>")[2].partition("<h2")[0]
    assert "the style can NOT be read: of " in strip and " of 100 comparisons, in at least " in strip, (
        "half of one brand is given as another one"
    )
    sources = re.findall('src="(.*?)"', strip)
    assert len(set(sources)) == galleries.REFERENCES_SHOWN and all((out / "report" / src).is_file() for src in sources)
    assert '<p class="note">Checks left out, which hold no picture back: novelty (no training' in page
    assert "There is no chart of brand, style, style_nearest, drawing: the style cannot be read" in page
    assert "<h3>sharpness</h3>" in page and "<h3>style</h3>" not in page and "<h3>brand</h3>" not in page
    assert galleries.NOT_RANKED in page and galleries.ORDERS["review"] not in page
    assert "of our references</code>" in page and str(tmp_path) not in page and str(files.ROOT) not in page


def test_pictures_are_ranked_only_where_the_style_can_be_read(plain: Path, lot: Path, tmp_path: Path) -> None:
    place = Lot(lot, tmp_path, [(name, lot / name) for name in ("0040.png", "0041.png", "0042.png")], {}, None, None)
    given = [verdict("review", "style", margin=m, file=f"004{i}.png") for i, m in enumerate((-0.2, -0.9, -0.1))]
    thumbnails = ReportThumbnails(tmp_path / "new", tmp_path, "#ffffff")
    for ranked, names, order in (
        (True, ["0042.png", "0040.png", "0041.png"], galleries.ORDERS["review"]),
        (False, ["0040.png", "0041.png", "0042.png"], galleries.NOT_RANKED),
    ):
        found = galleries.verdict_gallery_data("review", given, place, thumbnails, {}, ranked)
        assert [picture["file"] for picture in found["pictures"]] == names and found["text"].endswith(order)
    assert galleries.ORDERS["review"] in page_of(plain) and galleries.NOT_RANKED not in page_of(plain)
    assert "<h3>style</h3>" in page_of(plain) and "There is no chart of" not in page_of(plain)
    assert "higher is better, so -2 is better than -11" in page_of(plain)


def test_every_check_has_plain_words(plain: Path) -> None:
    checks = {reason["check"] for v in verdicts_of(plain) for reason in v["reasons"]}
    assert len(checks) > 4 and all(galleries.description_of_check(check) for check in checks)
    assert all(galleries.description_of_check(check) in html.unescape(page_of(plain)) for check in checks)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/srv/a b/refs/", "refs"), ("../refs", "refs"), ("neon's test/", "neon's test/"), ("a:b", "a:b")],
)
def test_folders_are_named_without_their_path(name: str, shown: str) -> None:
    assert report.last_part_of_path(name) == shown


def test_the_report_names_the_commands_that_come_next(plain: Path) -> None:
    """Without a path of this machine; the pictures in review are one click away."""
    page = html.unescape(page_of(plain))
    assert "<b>Next:</b> " in page and "run stylegate review with the same arguments" in page
    folder = Lot(Path("pictures"), Path("out"), [], {}, None, None)
    words = Config(images="pictures", references="./refs and more")
    assert report.review_command(words, folder) == "stylegate review images=pictures references='./refs and more'"
    for away in ("/srv/refs", "~/refs", "/srv/refs and more"):
        assert report.review_command(Config(images="pictures", references=away), folder) == ""


def pairs_of(out: Path) -> list[tuple[str, list[str]]]:
    """Caption and pictures of each pair."""
    part = page_of(out).partition("Refused as copies")[2].partition("<h2")[0]
    found = re.findall(r"<figure>(.*?)<figcaption>(.*?)</figcaption>", part, re.DOTALL)
    return [(html.unescape(caption), re.findall('src="(.*?)"', inside)) for inside, caption in found]


def test_copies_stand_beside_their_twins(plain: Path, lot: Path) -> None:
    pairs = pairs_of(plain)
    copied = next(pair for pair in pairs if pair[0].startswith("zz <i>'same\".png · 0040.png (of these pictures, "))
    known = next(pair for pair in pairs if pair[0].startswith("zz-training.png · train/0003.png (training picture)"))
    assert "distinct: likeness 0.999" in copied[0] and "novelty: likeness 0.999" in known[0]
    for (_, (one, other)), first, second in (
        (copied, lot / "0040.png", lot / "0040.png"),
        (known, lot / "zz-training.png", NEON / "train" / "0003.png"),
    ):
        for source, path in ((one, first), (other, second)):
            assert Image.open(plain / "report" / source).tobytes() == Image.open(path).convert("RGB").tobytes()


def test_a_copy_of_what_was_exported_names_the_package(run, lot: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
    shutil.copy(lot / "0042.png", first / "a.png")
    Image.open(lot / "0042.png").save(second / "b.png", compress_level=1)
    assert run("gate", f"images={first}", f"out={tmp_path / 'one'}")[0] == 0
    assert run("export", f"images={first}", f"out={tmp_path / 'one'}", "name=gone")[0] == 0
    assert run("gate", f"images={second}", f"out={tmp_path / 'two'}")[0] == 10
    ((caption, sources),) = pairs_of(tmp_path / "two")
    assert caption.startswith("b.png · gone-v1/a.png (exported before)") and len(sources) == 2


@pytest.mark.parametrize(
    ("promise", "heading", "text"),
    [
        (
            {"state": "none", "says": ""},
            "How many of the accepted pictures are bad is not proven",
            "whether at most 5.0% of",
        ),
        ({"state": "stale", "says": "STALE: another LoRA"}, "The calibration is stale", "another LoRA"),
        ({"state": "insufficient", "says": "not proven: x"}, "Not proven", "x"),
        ({"state": "valid", "says": "150 labels"}, "The calibration is valid", "150 labels"),
        (
            {"state": "certified", "says": "", "bound": 0.0412, "labels": 87},
            "At most 4.2% of the exported pictures are rejects (95% confidence, 87 labels)",
            "certificate.json",
        ),
    ],
)
def test_the_promise_in_words(promise: dict, heading: str, text: str) -> None:
    found = report.promise_heading_and_text(PromiseState.model_validate(promise), POLICY)
    assert found["heading"].startswith(heading) and text in found["text"] and found["state"] == promise["state"]
    assert found["asked"]


def test_a_promise_that_nobody_asked_for_is_the_last_thing_on_the_page(plain: Path, labelled: Path) -> None:
    page, asked = page_of(plain), page_of(labelled)
    assert "stylegate certify can show whether" in page.partition("<h2>How many of the accepted")[2]
    assert page.index("<h2>How many of the accepted") > page.index('<h2 id="scores">')
    assert '<div class="promise' not in page and asked.index('<div class="promise') < asked.index("<h2")


def test_who_answers_is_said_below_the_picture() -> None:
    found = verdict(
        "review",
        "style",
        margin=-1.0,
        waived=[WAIVED],
        settled=AcceptingDecision(who="kim", why="is fine", reasons=[make_reason("palette", "review")]),
    )
    said = [": ".join(line) for line in galleries.verdict_caption_lines(found)]
    assert said[1:] == [
        "review: waived: novelty: ada, until 2027-01-31: our logo",
        "review: settled: palette: kim: is fine",
    ]


def test_a_reason_has_the_colour_of_what_it_leads_to() -> None:
    """Not that of the picture's verdict: a rejected picture has reasons that lead only to review."""
    kinds = ["reject", "review", "review", "review"]
    reasons = [make_reason("style", kind, 0.4, 0.5) for kind in kinds]
    lines = galleries.verdict_caption_lines(lots.verdict(*reasons))
    assert [line[0] for line in lines] == kinds


def gallery_of(kind: str, verdicts: list[Verdict], tmp_path: Path, ranked: bool = True) -> dict[str, Any]:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    lot = Lot(tmp_path, tmp_path, [(v.file, tmp_path / "one.png") for v in verdicts], {}, None, None)
    thumbnails = ReportThumbnails(tmp_path / f"{ranked}", tmp_path / "old", "#ffffff")
    return galleries.verdict_gallery_data(kind, verdicts, lot, thumbnails, {}, ranked)


def test_every_reason_of_a_picture_can_be_read(tmp_path: Path) -> None:
    """The first few stand below it, the others open by a click, without a script."""
    checks = ["style", "brand", "palette", "coherence", "sharpness", "drawing"]
    reasons = [make_reason(check, "reject", 0.4, 0.5) for check in checks]
    (figure,) = gallery_of("reject", [lots.verdict(*reasons)], tmp_path)["pictures"]
    assert [line[1] for line in figure["lines"]] == checks[:4]
    assert figure["more"] == [
        ("reject", "sharpness", "0.4\u00a0<\u00a00.5"),
        ("reject", "drawing", "0.4\u00a0<\u00a00.5"),
    ]


@pytest.mark.parametrize("kind", ["review", "reject"])
def test_near_misses_stand_first_and_the_heading_says_it(kind: str, tmp_path: Path) -> None:
    far, near, unknown = (
        lots.verdict(make_reason("style", kind, 0.4, 0.5), file=f"{name}.png", margin=margin)
        for name, margin in (("a", -9.0), ("b", -0.1), ("0", None))
    )
    gallery = gallery_of(kind, [unknown, far, near], tmp_path)
    assert [figure["file"] for figure in gallery["pictures"]] == ["b.png", "a.png", "0.png"]
    assert "come first" in gallery["text"] and "near" in gallery["text"]
    unranked = gallery_of(kind, [near, far, unknown], tmp_path, ranked=False)
    assert [figure["file"] for figure in unranked["pictures"]] == ["0.png", "a.png", "b.png"]
    assert galleries.NOT_RANKED in unranked["text"]


@pytest.mark.parametrize(
    ("name", "values", "lines", "ends"),
    [
        ("openness", [0.0, 0.0, 0.9, 1.0], {"reject_below": -0.508}, ("0", "1")),
        ("completeness", [0.0, 50.0, 100.0], {"reject_below": -70.3}, ("0", "104")),
        ("size", [1.0, 1.0], {"review_below": 1.0}, ("0.95", "1")),
        ("coherence", [-5.0, 0.0, 0.5], {"reject_below": -0.8}, ("-4.9", "0.76")),  # beyond what is usual: shown
    ],
)
def test_a_chart_ends_where_the_score_ends(
    name: str, values: list[float], lines: dict[str, float | None], ends: tuple[str, str]
) -> None:
    lowest, highest = SCORES[name].lowest, SCORES[name].highest
    svg = score_histogram_svg(np.array(values), np.zeros(0), lines, (lowest, highest))
    assert tuple(re.findall(r"<text[^>]*>([^<]+)</text>", svg)) == ends
    within = sum(x is not None and x >= lowest for x in lines.values())
    assert svg.count("stroke=") == within, "a limit that no score can reach has no line"


def test_the_page_and_the_summary_name_the_judged_folder(run, lot: Path, tmp_path: Path, monkeypatch) -> None:
    """As it was typed, not the folder of the results; of a path of this machine the last part."""
    monkeypatch.chdir(lot.parent)
    out = tmp_path / "out"
    for typed, shown in ((f"./{lot.name}", f"./{lot.name}"), (str(lot), lot.name)):
        run("gate", f"images={typed}", f"out={out}", "references=neon")
        assert f"<h1>{shown}</h1>" in page_of(out)
        assert (out / "summary.md").read_text().startswith(f"## stylegate: {shown}: ")


def test_the_page_has_a_details_for_reasons_beyond_the_first(run, tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(3):
        shutil.copy(NEON / "validation" / f"004{number}.png", place)
    shutil.copy(files.ROOT / "data" / "brands" / "pixel" / "validation" / "0040.png", place / "pixel.png")
    run("gate", f"images={place}", f"out={tmp_path / 'out'}", "references=neon")
    (given,) = [v for v in verdicts_of(tmp_path / "out") if v["file"] == "pixel.png"]
    section = page_of(tmp_path / "out").partition('<div class="sheet reject">')[2].partition("</figure>")[0]
    shown, _, hidden = section.partition(f"<details><summary>and {len(given['reasons']) - 4} more</summary>")
    named = [re.findall(r'<b class="\w+">([\w-]+)</b>', part) for part in (shown, hidden)]
    assert len(given["reasons"]) > 4 and [*named[0], *named[1]] == [r["check"] for r in given["reasons"]]


def test_the_page_colours_reasons_by_what_they_lead_to(plain: Path) -> None:
    rejected = page_of(plain).partition('<div class="sheet reject">')[2].partition("<h2")[0]
    shown = re.findall(r'<br><b class="(\w+)">([\w-]+)</b>', rejected)
    given = {(r["verdict"], r["check"]) for v in verdicts_of(plain) if v["verdict"] == "reject" for r in v["reasons"]}
    assert set(shown) == given and ("reject", "distinct") in given


def test_rules_and_cost_are_on_the_page(run, lot: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "version: 1\nchecks: {contrast: {reject_below: 6}}\nbatch: {acceptance: {fail_below: 1}}\n"
    )
    asked = [f"images={lot}", f"out={tmp_path / 'out'}", f"policy={tmp_path / 'p.yaml'}"]
    assert run("gate", *asked)[0] == 10
    page = page_of(tmp_path / "out")
    assert "<b>fail</b> acceptance is 0.944, 1 is asked" in page and "of compute" not in page
    (tmp_path / "out" / "cost.json").write_text('{"train": 300.0, "draw": 40.0}')
    run("gate", *asked)
    assert "Cost: 10 s of compute per accepted picture (train 8.8, draw 1.2)</p>" in page_of(tmp_path / "out")
    run("gate", *asked, "hardware.price_per_hour=3.6")
    assert "10 s of compute per accepted picture (train 8.8, draw 1.2), 0.01 in money at 3.6 an hour" in page_of(
        tmp_path / "out"
    )


def test_cost_in_words() -> None:
    assert report.cost_in_words({}, 5, 2.0) == ""
    assert report.cost_in_words({"train": 100.0}, 0, None) == "100 s of compute and no accepted picture"
    assert report.cost_in_words({"a": 1.0, "b": 2.0}, 10, 0.01).endswith("0.00000083 in money at 0.01 an hour")
    record = cost.cost_per_accepted({"a": 1.0, "b": 2.0}, 10, 3.6)
    assert record.seconds_per_accepted == {"a": 0.1, "b": 0.2} and record.money_per_accepted == {
        "a": 0.0001,
        "b": 0.0002,
    }


def test_cost_adds_up_over_stages_and_runs(tmp_path: Path) -> None:
    from train.experiment import add_seconds_to_cost_file

    for seconds in ({"train": 2.0, "plan": 0.1}, {"draw": 3.0}, {"train": 1.5}):
        add_seconds_to_cost_file(tmp_path, seconds)
    assert report.read_compute_seconds_by_stage(tmp_path) == {"train": 3.5, "plan": 0.1, "draw": 3.0}
