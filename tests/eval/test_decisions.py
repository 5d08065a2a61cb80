"""Decisions: the way out of review, and what they cannot do."""

import csv
import json
from pathlib import Path

import pytest

from eval.policy import file as policyfile
from eval.promise import labels, worksheet
from stylegate import files
from stylegate.errors import DataError
from tests.eval.people import ALL_IN_REVIEW, ALL_PASS, decisions, fill, good, label, verdicts_of

POLICY = policyfile.read_policy("default")


def test_decisions_settle_what_is_in_review(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    assert run("gate", *told)[0] == 11
    names = sorted(verdicts_of(out))
    some = dict.fromkeys(names[:-2], "accept") | {names[-2]: "unsure", names[-1]: "reject"}
    code = run("gate", *told, decisions(out, some, tmp_path / "d.csv"))[0]
    found = verdicts_of(out)
    assert code == 10 and [found[n]["verdict"] for n in names[-2:]] == ["review", "reject"]
    assert found[names[0]]["settled"] == {
        "who": "anna",
        "why": "looked",
        "reasons": found[names[0]]["settled"]["reasons"],
    }
    assert found[names[-1]]["reasons"][0]["detail"] == "anna: looked"
    rest = decisions(out, {names[-2]: "accept", names[-1]: "accept"}, tmp_path / "e.csv")
    assert run("gate", *told, rest)[0] == 0, "who decided may decide again"
    assert run("gate", *told)[0] == 0, "decisions stay"
    sha256 = found[names[0]]["sha256"]
    waiver = f"waivers: [{{sha256: {sha256}, check: contrast, owner: anna, reason: fine, expires: 2090-01-01}}]\n"
    (tmp_path / "policy.yaml").write_text(ALL_IN_REVIEW + waiver)
    assert run("gate", *told)[0] == 0, "also after a waiver"


def test_who_is_unsure_lets_nothing_out(run, words, tmp_path: Path) -> None:
    """A picture that the policy accepts and somebody rejected is not accepted again because somebody is unsure."""
    told, out = words(ALL_PASS), tmp_path / "out"
    assert run("gate", *told)[0] == 0
    name = min(verdicts_of(out))
    for word, code, verdict in (("reject", 10, "reject"), ("unsure", 11, "review"), ("accept", 0, "accept")):
        told_now = [*told, decisions(out, {name: word}, tmp_path / f"{word}.csv")]
        assert run("gate", *told_now)[0] == code and verdicts_of(out)[name]["verdict"] == verdict
    before = policyfile.read_policy(str(tmp_path / "policy.yaml"))
    found = [
        labels.label_with_policy(label(verdicts_of(out)[name]["sha256"], word), before) for word in ("reject", "unsure")
    ]
    labels.append_labels(out, "review", found)
    (tmp_path / "policy.yaml").write_text(ALL_PASS + "guideline: another\n")
    assert run("gate", *told)[0] == 11 and verdicts_of(out)[name]["reasons"][0]["check"] == "rejected-by-another-rule"


def test_decisions_accept_nothing_that_the_policy_rejects(run, words, tmp_path: Path, judged: Path) -> None:
    (judged / "broken.png").write_bytes(b"nothing")
    told, out = words("version: 1\nchecks: {contrast: {reject_below: 200}}\n"), tmp_path / "out"
    assert run("gate", *told)[0] == 10
    every = dict.fromkeys(verdicts_of(out), "accept")
    code, text = run("gate", *told, decisions(out, every, tmp_path / "d.csv"))
    assert code == 10 and "are about pictures that the policy rejects" in text
    assert {v["verdict"] for v in verdicts_of(out).values()} == {"reject", "error"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,verdict\nx,accept", "needs a first line"),
        ("file,verdict,who\nx,accept,anna", "no picture here is called 'x'"),
        ("", "needs a first line"),
        ("sha256,verdict,who,why\nabc,accept,anna,", "line 2: sha256 is not 64 hex digits"),
        ("sha256,verdict,who,why\nKNOWN,maybe,anna,", "verdict 'maybe' is none of"),
        ("sha256,verdict,who,why\nKNOWN,accept,,", "who is empty"),
        ("sha256,verdict,who,why\nKNOWN,accept,anna,\nKNOWN,reject,bob,", "line 3: contradicts"),
        ("sha256,verdict,who,why,purpose\nKNOWN,accept,anna,,audit", "is for audit"),
        ("file,sha256,verdict,who\nOTHER,KNOWN,accept,anna", "line 2: file and sha256 are of two pictures"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_bad_decisions_are_refused_whole(run, words, tmp_path: Path, text: str, says: str) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    known, other = [*verdicts_of(out).values()][:2]
    text = text.replace("KNOWN", known["sha256"]).replace("OTHER", other["file"])
    (tmp_path / "d.csv").write_bytes(text.encode("latin-1"))
    code, found = run("gate", *told, f"decisions={tmp_path / 'd.csv'}")
    assert code == 2 and says in found and "Traceback" not in found
    assert not (out / "labels.sqlite").exists()


def test_decisions_may_be_of_many_lots_and_labels_may_not(run, words, tmp_path: Path) -> None:
    """A pipeline's decisions.csv grows from lot to lot; a label of a picture that is not in the lot is a mistake."""
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    path = tmp_path / "d.csv"
    told_to = decisions(out, dict.fromkeys(verdicts_of(out), "accept"), path)
    path.write_text(path.read_text() + f"{'0' * 64},accept,anna,of last week\n")
    code, text = run("gate", *told, told_to)
    assert code == 0 and "note: 1 decision is about pictures that are not here" in text
    (tmp_path / "a.csv").write_text(f"sha256,verdict,who,why\n{'0' * 64},accept,anna,\n")
    code, text = run("certify", *told, f"decisions={tmp_path / 'a.csv'}")
    assert code == 2 and "line 2: no picture here is 000000" in text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"sha256;verdict;who;why\n{'a' * 64};accept;art;fine, by me\n", "fine, by me"),
        (f"\ufeffSHA256,Verdict,Who,Why,,\r\n{'a' * 64},accept,art,fine,,\r\n,,,,,\r\n", "fine"),
        (f'sha256,verdict,who,why\n{"a" * 64},accept,art,"one\ntwo"\n', "one\ntwo"),
        (f"sha256\tverdict\twho\n{'a' * 64}\taccept\tart\n", ""),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "d.csv").write_bytes(content.encode())
    found = worksheet.read_worksheet_answers(tmp_path / "d.csv", "review", tmp_path, {"a.png": "a" * 64}, POLICY)
    assert [answer.label for answer in found] == [label("a" * 64, "accept", "art", why)]


def test_a_row_with_too_many_cells_refuses_the_table(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"sha256,verdict,who,why\n{'a' * 64},accept,art,fine, by me\n")
    with pytest.raises(DataError) as error:
        worksheet.read_worksheet_answers(tmp_path / "d.csv", "review", tmp_path, {"a.png": "a" * 64}, POLICY)
    assert "line 2: 5 cells under 4 columns" in str(error.value)


def test_a_row_of_json_lines_that_lacks_a_key_is_a_problem_of_its_line(tmp_path: Path) -> None:
    rows = [
        {"sha256": "a" * 64, "verdict": "accept", "who": "anna"},
        {"sha256": "a" * 64, "verdict": "accept"},
        {"sha256": "a" * 64, "shows": "hat: none", "who": "anna"},
    ]
    (tmp_path / "d.jsonl").write_text(files.json_lines_text(rows))
    with pytest.raises(DataError) as caught:
        worksheet.read_worksheet_answers(tmp_path / "d.jsonl", "review", tmp_path, {"a.png": "a" * 64}, POLICY)
    assert caught.value.problems == [
        "line 2: who is empty: somebody answers for each label",
        "line 3: verdict '' is none of accept, reject, unsure",
    ]


def test_every_problem_of_a_row_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("file,verdict,who,purpose\nb.png,maybe,,audit\na.png,accept,anna,\n")
    with pytest.raises(DataError) as caught:
        worksheet.read_worksheet_answers(tmp_path / "d.csv", "review", tmp_path, {"a.png": "a" * 64}, POLICY)
    assert caught.value.problems == [
        "line 2: no picture here is called 'b.png'",
        "line 2: verdict 'maybe' is none of accept, reject, unsure",
        "line 2: who is empty: somebody answers for each label",
        "line 2: is for audit; labels of one purpose never serve another",
    ]


def test_damaged_streams_are_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text(json.dumps({"sha256": "x", "verdict": "accept", "who": "anna"}) + "\n")
    with pytest.raises(DataError, match="not as stylegate writes it"):
        labels.read_stored_labels(tmp_path, "audit")


def test_decisions_settle_only_the_reasons_that_they_were_asked_for(run, words, tmp_path: Path) -> None:
    """32 accepts given for `contrast` once settled 32 reviews by `sharpness` of another policy."""
    other = "version: 1\nchecks: {sharpness: {review_below: 1e6}, contrast: {review_below: 200}}\n"
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    assert run("gate", *told)[0] == 11
    given = decisions(out, dict.fromkeys(verdicts_of(out), "accept"), tmp_path / "d.csv")
    assert run("gate", *told, given)[0] == 0
    assert {tuple(label.checks) for label in labels.read_stored_labels(out, "review")} == {("contrast",)}
    told = words(other)
    for more in ([], [given]):
        code, text = run("gate", *told, *more)
        assert code == 11 and "32 decisions in labels.sqlite were given under another policy" in text
    sheet = fill(out / "review.csv", good)
    assert '"sharpness, contrast"' in sheet.read_text(), "the furthest below its line first"
    partly = sheet.read_text().replace('"sharpness, contrast"', "sharpness", 1)
    (tmp_path / "partly.csv").write_text(partly)
    code, text = run("gate", *told, f"decisions={tmp_path / 'partly.csv'}")
    assert code == 11 and "1 decision was given for other reasons than the pictures are in review for" in text
    assert [v["verdict"] for v in verdicts_of(out).values()].count("review") == 1
    assert run("gate", *told, f"decisions={sheet}")[0] == 0, "the new worksheet names policy and reasons"
    assert run("gate", *words(ALL_IN_REVIEW))[0] == 0, "under the first policy the first decisions still count"
    code, text = run("gate", *words("guideline: version 2\n" + ALL_IN_REVIEW), f"decisions={sheet}")
    assert code == 11 and "32 decisions were asked for under another policy or guideline: not used here" in text


@pytest.mark.parametrize("stream", ["review", "audit", "calibrate"])
def test_a_reject_under_another_rule_asks_for_review(run, words, tmp_path: Path, stream: labels.Purpose) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    assert run("gate", *told)[0] == 0
    name, row = next(iter(verdicts_of(out).items()))
    earlier = labels.label_with_policy(label(row["sha256"], "reject", why="too dark"), POLICY)
    labels.append_labels(out, stream, [earlier])
    code, text = run("gate", *told)
    found = verdicts_of(out)
    assert code == 11 and (stream == "calibrate" or "to reject asks for review" in text)
    assert [n for n, v in found.items() if v["verdict"] != "accept"] == [name]
    (reason,) = found[name]["reasons"]
    assert reason["check"] == "rejected-by-another-rule" and "anna: too dark; look afresh" in reason["detail"]
    assert run("gate", *told, f"decisions={fill(out / 'review.csv', good)}")[0] == 0, "it is settled under this policy"
    assert verdicts_of(out)[name]["settled"]["reasons"] == [reason]


def test_who_accepts_a_picture_in_an_audit_has_looked_by_the_rule_in_force(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_PASS), tmp_path / "out"
    assert run("gate", *told)[0] == 0
    sha256 = next(iter(verdicts_of(out).values()))["sha256"]
    mine = policyfile.read_policy(str(tmp_path / "policy.yaml"))
    labels.append_labels(out, "audit", [labels.label_with_policy(label(sha256), mine)])
    labels.append_labels(out, "audit", [labels.label_with_policy(label(sha256, "unsure"), POLICY)])
    assert run("gate", *told)[0] == 0
    labels.append_labels(out, "audit", [labels.label_with_policy(label(sha256, "reject"), mine)])
    assert run("gate", *told)[0] == 10


def test_decisions_of_older_versions_count_for_nothing(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    for row in verdicts_of(out).values():
        old = {"sha256": row["sha256"], "verdict": "accept", "who": "anna", "why": ""}
        files.append_jsonl(out / "decisions.jsonl", old)
    code, text = run("gate", *told)
    assert code == 11 and "or by an older version that did not write it down" in text


def test_a_worksheet_lists_what_stands_in_review(run, words, tmp_path: Path) -> None:
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    rows = list(csv.DictReader((out / "review.csv").open()))
    assert len(rows) == 32 and {row["reasons"] for row in rows} == {"contrast"}
    by_name = "".join(f"{row['file']},accept,anna\n" for row in rows)
    (tmp_path / "names.csv").write_text("file,verdict,who\n" + by_name)
    assert run("gate", *told, f"decisions={tmp_path / 'names.csv'}")[0] == 0
    assert len(list(csv.DictReader((out / "review.csv").open()))) == 0


def test_nothing_that_a_person_wrote_into_a_worksheet_is_lost(run, words, tmp_path: Path) -> None:
    """An answer is stored, or stays in a sheet: an unsure one, a note, one not given yet, one under another policy."""
    told, out = words(ALL_IN_REVIEW), tmp_path / "out"
    run("gate", *told)
    sheet = out / "review.csv"

    def read() -> dict[str, dict[str, str]]:
        return {row["file"]: row for row in csv.DictReader(sheet.open(newline=""))}

    a, b, c, d, e, *_ = rows = read()
    for name, written in {
        a: {"verdict": "accept", "who": "anna"},
        b: {"verdict": "unsure", "who": "anna", "why": "is the cape meant?"},
        c: {"why": "ask Ben"},
        d: {"who": "anna"},
        e: {"verdict": "reject", "who": "anna"},
    }.items():
        rows[name] |= written
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[a], "my notes"], delimiter=";")
        writer.writeheader()
        writer.writerows(row | {"my notes": f"n{i}"} for i, row in enumerate(rows.values()))
    code, text = run("gate", *told)
    assert code == 11 and "review.csv has 3 answers that are not stored yet; give it with decisions=" in text
    assert read()[a]["verdict"] == "accept" and read()[a]["my notes"] == "n0" and len(read()) == 32
    code, text = run("gate", *told, f"decisions={sheet}")
    assert code == 10 and f"3 rows of {sheet} read (1 accept, 1 reject, 1 unsure); 3 new in " in text
    for _ in range(2):
        left = read()
        assert a not in left and e not in left and len(left) == 30 and "not stored" not in text
        assert (left[b]["verdict"], left[b]["why"], left[c]["why"], left[d]["who"]) == (
            *("unsure", "is the cape meant?", "ask Ben", "anna"),
        )
        code, text = run("gate", *told, f"decisions={sheet}")
        assert f"1 row of {sheet} read (1 unsure); 0 new in " in text
    rows = read()
    rows[d]["verdict"] = "accept"
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[d]))
        writer.writeheader()
        writer.writerows(rows.values())
    (tmp_path / "policy.yaml").write_text("guideline: another\n" + ALL_IN_REVIEW)
    code, text = run("gate", *told)
    assert "review.csv was asked for otherwise, or is damaged; now it is review-1.csv" in text
    assert "anna" not in sheet.read_text() and "anna" in (out / "review-1.csv").read_text() and len(read()) == 32


def test_names_that_stand_for_two_pictures_are_refused() -> None:
    pictures = worksheet.PictureNameLookup({"a/x.png": "a" * 64, "b/x.png": "b" * 64, "b/y.png": "c" * 64})
    assert pictures.digest_or_problem_of_picture("a/x.png") == ("a" * 64, "")
    assert pictures.digest_or_problem_of_picture("y.png") == ("c" * 64, "")
    assert pictures.digest_or_problem_of_picture("x.png")[1].startswith("2 pictures are called x.png")


@pytest.mark.parametrize("name", ["=1+1.png", "+x.png", "-x.png", "@x.png", "\tx.png", "\rx.png", "'=x.png", "'x.png"])
def test_no_cell_of_a_worksheet_is_a_formula(tmp_path: Path, name: str) -> None:
    """A spreadsheet may run a cell that begins so; the name is read back as it was."""
    sheet = tmp_path / "review.csv"
    worksheet.write_worksheet(sheet, "review", [worksheet.WorksheetQuestion(name, "", name)], POLICY, {})
    with sheet.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
    filled = fill(sheet, good)
    (answer,) = worksheet.read_worksheet_answers(filled, "review", tmp_path, {name: "a" * 64}, POLICY)
    assert answer.label.sha256 == "a" * 64


@pytest.mark.parametrize("shows", ["hat: none", ": none", ":", "none"])
def test_what_shows_names_without_planned_traits_is_a_problem_of_its_line(shows: str) -> None:
    with pytest.raises(ValueError, match="the traits are none"):
        worksheet.parse_trait_and_value_shown(shows, {})
