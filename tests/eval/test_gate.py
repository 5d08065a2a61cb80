"""The gate: fails closed, counts add up, exit codes tell."""

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval import gate
from eval.judging.advice import NOBODY_LOOKED
from eval.judging.byscores import verdict_and_reasons, verdicts_of_rows
from eval.judging.rules import folder_exit_code
from eval.judging.verdicts import Verdict, make_reason
from eval.measuring import features
from eval.package import signature
from eval.policy.lines import ResolvedCheckLines
from eval.report.summaries import markdown_summary
from stylegate import files
from tests import lots
from tests.conftest import process
from tests.lots import verdict

STYLE = ResolvedCheckLines("style", 0.5, 0.7, True)
CONTRAST = ResolvedCheckLines("contrast", 6.0, None, False)


@pytest.mark.parametrize(
    ("scores", "expected", "checks"),
    [
        ({"style": 0.8, "contrast": 20, "in_domain": 1}, "accept", []),
        ({"style": 0.7, "contrast": 6, "in_domain": 1}, "accept", []),  # at the line is not below it
        ({"style": 0.6, "contrast": 20, "in_domain": 1}, "review", ["style"]),
        ({"style": 0.4, "contrast": 20, "in_domain": 1}, "reject", ["style"]),
        ({"style": 0.6, "contrast": 1, "in_domain": 1}, "reject", ["contrast", "style"]),
        ({"style": None, "contrast": 20, "in_domain": 1}, "error", ["style"]),
        ({"style": math.nan, "contrast": 1, "in_domain": 1}, "error", ["style", "contrast"]),
        ({"style": math.inf, "contrast": 20, "in_domain": 1}, "error", ["style"]),
        ({"contrast": 20, "in_domain": 1}, "error", ["style"]),
        ({"style": 0.9, "contrast": 20, "in_domain": 0}, "accept", []),  # a hint: the style's reader decides
    ],
)
def test_decide(scores: dict, expected: str, checks: list[str]) -> None:
    found, reasons = verdict_and_reasons(scores, [STYLE, CONTRAST])
    assert found == expected and [reason.check for reason in reasons] == checks


def test_a_planned_value_that_nobody_can_read_goes_to_a_person() -> None:
    """It is neither accepted nor rejected; where planned and seen differ, the reason names both."""
    row = {"file": "a.png", "sha256": "a" * 64, "error": None, "style": 0.9, "traits": 5.0, "unknown_traits": None}
    unknown, other = row | {"unknown_traits": "Eyes: Round"}, row | {"traits": -9.0}
    other["differing_traits"] = "hat: crown planned, none seen"
    asked = [STYLE, ResolvedCheckLines("traits", -1.0, None, False)]
    found = verdicts_of_rows([row, unknown, other], asked, lots.policy(1.0), [])
    assert [one.verdict for one in found] == ["accept", "review", "reject"]
    assert [reason.check for reason in found[1].reasons] == ["unknown-trait-value"]
    assert found[1].reasons[0].detail == "no picture of the brand shows Eyes: Round"
    assert found[2].reasons[0].detail == "hat: crown planned, none seen"
    warned = [STYLE, ResolvedCheckLines("traits", None, None, False, warn_below=9.0)]
    assert verdicts_of_rows([unknown], warned, lots.policy(1.0), [])[0].verdict == "accept", "traits hold nothing back"


def test_the_gate_is_monotone_in_the_score() -> None:
    rank = {"reject": 0, "review": 1, "accept": 2}
    found = [
        rank[verdict_and_reasons({"style": s, "contrast": 20}, [STYLE, CONTRAST])[0]] for s in np.linspace(0, 1, 101)
    ]
    assert found == sorted(found) and set(found) == {0, 1, 2}


def test_folder_exit_codes() -> None:
    def code(share: float, *verdicts: str) -> int:
        return folder_exit_code([verdict(kind=v) for v in verdicts], lots.policy(share))

    assert code(0, "accept", "accept") == 0
    assert code(0, "accept", "review") == 11
    assert code(0, "reject", "review") == 10 == code(0, "error", "accept")
    assert code(0.5, "reject", "accept") == 0 and code(0.4, "reject", "accept") == 10
    assert code(0.29, *["reject"] * 29, *["accept"] * 71) == 0, "0.29 * 100 is a little below 29"
    assert code(0.29, *["reject"] * 30, *["accept"] * 70) == 10


def verdicts_of(out: Path) -> dict[str, dict]:
    rows = files.read_jsonl(out / "verdicts.jsonl")
    counts = json.loads((out / "gate.json").read_text())["counts"]
    assert counts["in"] == len(rows) == sum(counts[v] for v in ("accept", "review", "reject", "error"))
    return {row["file"]: row for row in rows}


def test_the_last_line_is_the_folder_also_where_the_tracker_speaks(
    run, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.gate.mirror_to_wandb", lambda *_: print("W&B is offline."))
    text = run("gate", f"images={judged}", f"out={tmp_path / 'out'}")[1]
    assert text.splitlines()[-2] == "W&B is offline." and text.splitlines()[-1].endswith("out")


def test_it_says_which_further_reasons_of_a_reject_lead_only_to_review() -> None:
    far, near = make_reason("palette", "reject", 0.1, 0.5), make_reason("style", "review", 0.4, 0.5)
    for reasons, words in (
        ([far, near], ", and 1 more reason, only for review"),
        ([far, far, near], ", and 2 more reasons, 1 of them only for review"),
        ([far, far], ", and 1 more reason"),
        ([near, near], ", and 1 more reason"),
        ([far], ""),
    ):
        found = lots.verdict(*reasons, file="a.png", kind=reasons[0].verdict)
        judged: Any = SimpleNamespace(outcome=lots.gate_record([found]), verdicts=[found])
        (line,) = gate.pictures_that_did_not_pass_in_words(judged)
        assert line.endswith(f" < 0.5){words}"), line


def test_true_pictures_pass_and_faults_do_not(run, judged: Path, tmp_path: Path) -> None:
    """Neon's own held-out pictures, and beside them a corrupt, a truncated, a blank and a copied one."""
    out = tmp_path / "out"
    code, text = run("gate", f"images={judged}", "brand=neon", f"out={out}")
    clean = verdicts_of(out)
    assert sum(v["verdict"] == "accept" for v in clean.values()) >= 29 and len(clean) == 32

    (judged / "corrupt.png").write_bytes(b"nothing")
    (judged / "truncated.png").write_bytes((judged / "0032.png").read_bytes()[:300])
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    shutil.copy(judged / "0040.png", judged / "zz-same.png")
    shutil.copy(files.ROOT / "data" / "brands" / "neon" / "train" / "0003.png", judged / "zz-training.png")
    code, text = run("gate", f"images={judged}", "brand=neon", f"out={out}")
    found = verdicts_of(out)
    assert code == 10 and text.splitlines()[-1].endswith("out")
    assert {n: found[n]["verdict"] for n in ("corrupt.png", "truncated.png", "blank.png")} == {
        "corrupt.png": "error",
        "truncated.png": "error",
        "blank.png": "reject",
    }
    assert [r["check"] for r in found["zz-same.png"]["reasons"]] == ["distinct"]
    assert "novelty" in [r["check"] for r in found["zz-training.png"]["reasons"]]
    assert {n: v["verdict"] for n, v in clean.items()} == {n: found[n]["verdict"] for n in clean}

    assert run("export", f"images={judged}", f"out={out}", "name=faults")[0] == 0
    names = {p.name for p in (files.EXPORTS / "faults-v1" / "data" / "images").iterdir()}
    assert names == {n for n, v in found.items() if v["verdict"] == "accept"}
    assert not names & {"corrupt.png", "truncated.png", "blank.png", "zz-same.png", "zz-training.png"}


def test_a_folder_with_only_a_corrupt_file_exits_10(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "KEY", tmp_path / "package.pem")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.png").write_bytes(b"nothing")
    code, text = run("gate", f"images={tmp_path / 'only'}")
    assert code == 10 and "1 in = 0 accept + 0 review + 0 reject + 1 error" in text
    assert "nothing to export" in run("export", f"images={tmp_path / 'only'}")[1]
    assert not signature.KEY.exists(), "no key is made for a package that is not written"


def test_without_references_only_faults_and_duplicates_are_judged(run, judged: Path) -> None:
    shutil.copy(judged / "0040.png", judged / "zz-same.png")
    clear = Image.open(judged / "0033.png").convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    clear.save(judged / "0033.png")
    code, text = run("gate", f"images={judged}")
    out = files.ROOT / text.splitlines()[-1]
    found = verdicts_of(out)
    assert code == 10 and [n for n, v in found.items() if v["verdict"] == "reject"] == ["zz-same.png"]
    odd = {n: [r["check"] for r in v["reasons"]] for n, v in found.items() if v["verdict"] == "review"}
    assert odd == {"0033.png": ["alpha"]}
    assert text.count("left out") == 1 and "brand, style (no references were given)" in text
    assert "novelty (no training pictures are known; brand= names them)" in text
    printed = [line for line in text.splitlines() if not line.startswith("score ")]
    assert printed[0] == NOBODY_LOOKED
    page = (out / "report" / "index.html").read_text()
    assert page.index(NOBODY_LOOKED) < page.index("pictures passed") and page.count("left out") == 1
    assert not (judged / "report").exists() and sorted(p.suffix for p in judged.iterdir()) == [".png"] * 33


def test_pictures_of_any_size_are_judged(run, judged: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    shutil.copytree(files.ROOT / "data" / "brands" / "neon" / "test", large)
    for path in (*judged.glob("*.png"), *large.glob("*.png")):
        Image.open(path).resize((160, 160), Image.Resampling.BICUBIC).save(path)
    run("gate", f"images={judged}", f"references={large}", f"out={tmp_path / 'out'}")
    found = verdicts_of(tmp_path / "out")
    assert sum(v["verdict"] == "accept" for v in found.values()) >= 0.8 * len(found), found


def test_a_plain_folder_of_references(run, judged: Path, tmp_path: Path) -> None:
    references = files.ROOT / "data" / "brands" / "neon" / "test"
    run("gate", f"images={judged}", f"references={references}", f"out={tmp_path / 'a'}")
    assert sum(v["verdict"] == "accept" for v in verdicts_of(tmp_path / "a").values()) >= 29
    pixel = run("gate", f"images={judged}", "references=pixel", f"out={tmp_path / 'b'}")
    found = verdicts_of(tmp_path / "b")
    assert pixel[0] in (10, 11) and all(v["verdict"] in ("reject", "review") for v in found.values())
    assert all("style" in [r["check"] for r in v["reasons"]] for v in found.values()), "neon is not pixel's style"
    few = tmp_path / "few"
    few.mkdir()
    every = sorted(references.glob("*.png"))
    for path in every[:2]:
        shutil.copy(path, few)
    code, text = run("gate", f"images={judged}", f"references={few}", f"out={tmp_path / 'c'}")
    assert code == 11 and "2 references can be used; style needs at least 8" in text
    assert {v["verdict"] for v in verdicts_of(tmp_path / "c").values()} == {"review"}
    assert "references, byte for byte" not in text
    assert (
        "note: 2 of the 2 pictures are references, byte for byte"
        in run("gate", f"images={few}", f"references={few}", f"out={tmp_path / 'same'}")[1]
    )
    for path in every[2:8]:
        shutil.copy(path, few)
    rough = run("score", f"images={judged}", f"references={few}", f"out={tmp_path / 'd'}")
    assert rough[0] == 0 and "8 references are rough" in str(
        files.read_json(tmp_path / "d" / "score.json", "it")["notes"]
    )


def test_scores_are_kept_and_a_changed_picture_is_seen(run, judged: Path, tmp_path: Path, monkeypatch) -> None:
    words = (f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}")
    assert "scores.parquet" in run("score", *words)[1]
    assert "nothing new" in run("score", *words)[1]
    Image.open(judged / "0033.png").rotate(90).save(judged / "0033.png")
    encoded = []
    from eval.measuring import features, redrawn

    real = features.encode_pictures
    for module in (features, redrawn):
        monkeypatch.setattr(module, "encode_pictures", lambda e, images: encoded.append(len(images)) or real(e, images))
    assert "nothing new" not in run("score", *words)[1]
    assert encoded == [1]


def test_a_policy_change_encodes_nothing_and_waits_for_no_torch(judged: Path, tmp_path: Path, run) -> None:
    words = [f"images={judged}", "references=neon", f"out={tmp_path / 'out'}"]
    run("score", *words)
    strict = tmp_path / "strict.yaml"
    strict.write_text("version: 1\nchecks: {contrast: {reject_below: 200}}\n")
    code = (
        "import sys; from stylegate.cli import main; "
        f"code = main(['gate', *{[*words, f'policy={strict}']!r}]); sys.exit(99 if 'torch' in sys.modules else code)"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], cwd=files.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 10, done.stdout + done.stderr
    assert all(v["verdict"] == "reject" for v in verdicts_of(tmp_path / "out").values())


def rewrite(path: Path, change) -> None:
    import pyarrow.parquet as pq

    pq.write_table(change(pq.read_table(path)), path)


def test_scores_that_were_edited_are_made_again(run, judged: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    words = (f"images={judged}", "references=neon", f"out={tmp_path / 'out'}")
    run("gate", *words)
    before = verdicts_of(tmp_path / "out")
    for change in (
        lambda t: t.drop_columns(["style"]),
        lambda t: t.drop_columns(["in_domain"]),
        lambda t: t.slice(1),
        lambda t: t.set_column(0, "file", t["file"].take(list(range(len(t)))[::-1])),
    ):
        rewrite(tmp_path / "out" / "scores.parquet", change)
        assert run("gate", *words)[0] == 10
        assert verdicts_of(tmp_path / "out") == before


def test_a_picture_that_is_swapped_while_it_is_read_is_an_error(run, judged: Path, tmp_path: Path, monkeypatch) -> None:
    """Hashed as one picture, read as another: nothing of it is judged, and the cache learns nothing wrong."""
    from eval.measuring import encoder

    good = (judged / "0033.png").read_bytes()
    Image.new("RGB", (64, 64), (1, 2, 77)).save(judged / "0033.png")
    real = encoder.load_encoder

    def swapping(*arguments):
        loaded = real(*arguments)
        (judged / "0033.png").write_bytes(good)
        return loaded

    monkeypatch.setattr(encoder, "load_encoder", swapping)
    words = (f"images={judged}", "references=neon", f"out={tmp_path / 'out'}")
    run("gate", *words)
    assert verdicts_of(tmp_path / "out")["0033.png"]["verdict"] == "error"
    monkeypatch.undo()
    run("gate", *words)
    assert verdicts_of(tmp_path / "out")["0033.png"]["verdict"] == "accept"
    Image.new("RGB", (64, 64), (1, 2, 77)).save(judged / "0033.png")
    run("gate", *words)
    assert verdicts_of(tmp_path / "out")["0033.png"]["verdict"] == "reject"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda text: text.replace('"verdict": "reject"', '"verdict": "accept"', 1),
        lambda text: "".join(text.splitlines(keepends=True)[:3]),
        lambda text: text + text.splitlines()[0],
        lambda text: text[:-5],
    ],
)
def test_verdicts_that_were_edited_are_not_exported(run, judged: Path, tmp_path: Path, tamper) -> None:
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    words = (f"images={judged}", f"out={tmp_path / 'out'}")
    run("gate", *words)
    path = tmp_path / "out" / "verdicts.jsonl"
    path.write_text(tamper(path.read_text()))
    code, text = run("export", *words, "name=edited")
    assert code == 2 and "is not what the gate wrote" in text and not list(files.EXPORTS.glob("*edited*"))


def test_subfolders_keep_their_names(run, judged: Path, tmp_path: Path) -> None:
    (judged / "a").mkdir()
    (judged / "0033.png").rename(judged / "a" / "b.png")
    (judged / "0034.png").rename(judged / "a-b.png")
    words = (f"images={judged}", f"out={tmp_path / 'out'}")
    assert run("gate", *words)[0] == 0 and run("export", *words, "name=nested")[0] == 0
    assert (files.EXPORTS / "nested-v1" / "data" / "images" / "a" / "b.png").exists()
    assert run("verify", str(files.EXPORTS / "nested-v1"))[0] == 0


def test_a_name_that_is_no_text_blocks_nobody(run, judged: Path, tmp_path: Path) -> None:
    (judged / "0033.png").rename(judged / "\udcff.png")  # the byte 0xff, as Python spells a name that is no UTF-8
    code, _ = run("gate", f"images={judged}", f"out={tmp_path / 'out'}")
    assert code == 0 and verdicts_of(tmp_path / "out")["\\xff.png"]["verdict"] == "accept"


def test_names_that_would_read_the_same_stay_apart(run, judged: Path, tmp_path: Path) -> None:
    """A byte that is no UTF-8, and the four characters that it is written as."""
    (judged / "0033.png").rename(judged / "\udcff.png")
    Image.new("RGB", (64, 64), "navy").save(judged / "\\xff.png")
    assert run("gate", f"images={judged}", f"out={tmp_path / 'out'}")[0] == 10
    found = verdicts_of(tmp_path / "out")
    assert found["\\xff.png"]["verdict"] == "accept" and found["\\x5cxff.png"]["verdict"] == "reject"
    assert len({row["sha256"] for row in found.values()}) == len(found)


def test_files_that_cannot_be_read_are_errors(run, judged: Path, tmp_path: Path) -> None:
    (judged / "gone.png").symlink_to(tmp_path / "nothing.png")
    (judged / "empty.png").write_bytes(b"")
    assert run("gate", f"images={judged}", f"out={tmp_path / 'out'}")[0] == 10
    found = verdicts_of(tmp_path / "out")
    assert found["gone.png"]["verdict"] == found["empty.png"]["verdict"] == "error"


def test_a_bug_after_a_failed_verdict_does_not_hide_it(run, judged: Path, tmp_path: Path, monkeypatch) -> None:
    def bug(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(gate, "write_reports", bug)
    words = (f"images={judged}", f"out={tmp_path / 'out'}")
    assert run("gate", *words)[0] == 1, "a pass with a bug is no pass"
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    assert run("gate", *words)[0] == 10


def test_precedence_of_exit_codes() -> None:
    from stylegate.errors import most_important_exit_code

    assert [
        most_important_exit_code(0, 11),
        most_important_exit_code(11, 10),
        most_important_exit_code(10, 1),
        most_important_exit_code(1, 11),
        most_important_exit_code(2, 10),
        most_important_exit_code(0),
    ] == [11, 10, 10, 1, 2, 0]


def test_observe_judges_and_never_exports(run, judged: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    words = (f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}")
    assert run("gate", *words, "observe=true")[0] == 0
    assert verdicts_of(tmp_path / "out")["blank.png"]["verdict"] == "reject"
    code, text = run("export", *words)
    assert code == 2 and "observe=true" in text


def test_console_and_summary_name_pictures_in_review_and_near_misses_first() -> None:
    """The console five of each verdict; where the style cannot be read nobody knows which are nearer, and names order
    them.
    """

    def found(kind: str, margin: float) -> Verdict:
        return verdict(make_reason("style", kind, 0.4, 0.5), file=f"{kind}{-margin:g}.png", margin=margin)

    given = [found("reject", -float(i)) for i in range(7, 0, -1)] + [found("review", -0.5), found("review", -0.25)]
    given.append(verdict(make_reason("decode", "error", detail="torn"), file="torn.png", margin=None))
    thresholds = {"style": {"reject_below": 0.5, "review_below": None, "fail_batch_below": None}}
    readable = {
        "readable": True,
        "different_references": 9,
        "needed": 0.8,
        "nearest": "x",
        "separations": {"x": {"area": 0.9, "low": 0.7}},
        "reads": [],
    }
    for can_be_read in (True, False):
        readability = readable | {"readable": can_be_read}
        outcome = lots.gate_record(given, thresholds=thresholds, readability=readability)
        shown = gate.console_summary_lines(SimpleNamespace(outcome=outcome, verdicts=given))  # type: ignore[arg-type]
        at = shown.index("pictures that did not pass (score < limit; higher is better, so -2 is better than -11):")
        lines = [line.removeprefix("  ") for line in shown[at + 1 :]]
        assert [line.split()[1].rstrip(":") for line in lines] == [
            *(["review0.25.png", "review0.5.png"]),
            *(f"reject{i}.png" for i in range(1, 6)),
            "and",
            "torn.png",
        ]
        assert lines[-2] == "reject: and 2 more" + ", further from passing" * can_be_read
        rejects = [f"reject{i}.png" for i in range(1, 8)]
        summary = markdown_summary("lot", outcome, given)
        assert re.findall("<code>(.*?)</code>", summary) == [
            *("review0.25.png", "review0.5.png"),
            *rejects,
            "torn.png",
        ]


def test_explain_prints_the_policy(run) -> None:
    code, text = run("gate", "explain=true")
    assert (
        code == 0
        and "sha256" in text
        and "reject below the references' median -4 spreads, at least the 90% quantile of foreign" in text
        and "file data/policies/default.yaml" in text
    )


def test_reports_are_the_same_bytes_for_the_same_input(run, judged: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        out = tmp_path / name / "same"
        lots.forget_what_was_learned()
        run("gate", f"images={judged}", "brand=neon", f"out={out}")
        pages.append({p.relative_to(out): p.read_bytes() for p in sorted((out / "report").rglob("*")) if p.is_file()})
    assert pages[0] == pages[1] and len(pages[0]) > 20


def test_hostile_file_names_are_text_in_the_report(run, judged: Path, tmp_path: Path) -> None:
    (judged / "0032.png").rename(judged / "<script>alert(1)<\x2fscript>.png".replace("/", "_"))
    run("gate", f"images={judged}", "brand=neon", f"out={tmp_path / 'out'}")
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["images=/does/not/exist"], "is not a folder"),
        (["images={empty}"], "holds no pictures"),
        (["images={judged}", "policy=unheard"], "policy=unheard"),
        (["images={judged}", "references={empty}"], "holds no pictures"),
        (["images={judged}", "references=unheard"], "references=unheard"),
        (["images={judged}", "encoder=unheard"], "encoder=unheard"),
        (["images={judged}", "encoder={empty}"], "neither a shipped name"),
        (["images={judged}", "out={other}"], "holds something else"),
        (["images={judged}", "out={judged}/0032.png"], "lies in the folder that is judged"),
        (["images={judged}", "policy=" + "x" * 300], "a name is too long"),
        (["images={judged}", "out={judged}"], "lies in the folder that is judged"),
        (["images={judged}", "score.aesthetic_head={judged}/0032.png"], "cannot be read"),
    ],
)
def test_bad_words(run, judged: Path, tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "report").mkdir(parents=True)
    places = {"judged": judged, "empty": tmp_path / "empty", "other": tmp_path / "other"}
    code, text = run("gate", *(w.format(**places) for w in words))
    assert code == 2 and says in text and "Traceback" not in text


def test_exit_code_of_the_command_itself(run, judged: Path) -> None:
    Image.new("RGB", (64, 64), "navy").save(judged / "blank.png")
    assert run("score", f"images={judged}")[0] == 0  # here, where torch is loaded already
    assert process("gate", f"images={judged}").returncode == 10


def exported_from(run, lot: Path, tmp_path: Path, name: str) -> None:
    assert run("gate", f"images={lot}", f"out={tmp_path / name}", "references=neon")[0] in (0, 10, 11)
    assert run("export", f"images={lot}", f"out={tmp_path / name}", f"name={name}")[0] == 0


def test_what_was_exported_must_not_come_again(
    run, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the same bytes nor the same pixels, from another folder; the folder's own package does not count.

    Copies are looked for by signatures alone: no exported picture, which has marks and so other bytes, is encoded.
    """
    exported_from(run, judged, tmp_path, "first")
    assert run("gate", f"images={judged}", f"out={tmp_path / 'first'}", "references=neon")[0] in (0, 10, 11)
    again = verdicts_of(tmp_path / "first")
    assert sum(v["verdict"] == "accept" for v in again.values()) >= 25, "its own package is no reason"
    lot = tmp_path / "second lot"
    lot.mkdir()
    kept = [n for n, v in again.items() if v["verdict"] == "accept"][:2]
    shutil.copy(judged / kept[0], lot / "same-bytes.png")
    Image.open(judged / kept[1]).save(lot / "resaved.png", compress_level=1)
    encoded, encode = [], features.encode_pictures
    monkeypatch.setattr(features, "encode_pictures", lambda e, shown: encoded.extend(shown) or encode(e, shown))
    run("gate", f"images={lot}", f"out={tmp_path / 'out'}", "references=neon")
    assert len(encoded) == 1, "resaved.png; the other has the bytes of one that was scored"
    reasons = {n: [r["check"] for r in v["reasons"]] for n, v in verdicts_of(tmp_path / "out").items()}
    assert "distinct" in reasons["same-bytes.png"] and "distinct" in reasons["resaved.png"]


def test_a_damaged_package_is_named(run, judged: Path, tmp_path: Path) -> None:
    exported_from(run, judged, tmp_path, "first")
    (files.EXPORTS / "first-v1" / "data" / "provenance.json").unlink()
    code, text = run("gate", f"images={judged}", "references=neon", f"out={tmp_path / 'other'}")
    assert code == 2 and "first-v1 has no provenance.json that can be read" in text
