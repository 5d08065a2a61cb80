"""The store of labels: nothing that was acknowledged is lost, nothing is changed unseen, older files are taken in."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from eval.policy import file as policyfile
from eval.promise import labels, store
from eval.promise.auditplan import AuditTerms
from eval.promise.older import OLDER_FILES
from stylegate import files
from stylegate.errors import DataError, SurroundingsError
from tests.eval.people import ALL_PASS, label

POLICY = policyfile.read_policy("default")
PICTURES = [f"{i:064x}" for i in range(5)]
TERMS = AuditTerms(lot="a", size=5, alpha=0.1, delta=0.1, ladder=[1.0], earlier=0)
WRITER = """
import sys, pathlib
from eval.promise import labels
out, count, who = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for number in range(count):
    one = labels.StoredLabel(sha256=f"{number:064x}", verdict="accept", who=who, why="")
    print(labels.append_labels(out, "review", [one])[0].id, flush=True)
"""


def give(out: Path, *verdicts: labels.LabelName, purpose: labels.Purpose = "review") -> list[labels.StoredLabel]:
    """Labels of the first picture under the default policy, stored."""
    new = [labels.label_with_policy(label(PICTURES[0], verdict), POLICY) for verdict in verdicts]
    return labels.append_labels(out, purpose, new)


def counting(out: Path, purpose: labels.Purpose = "review") -> list[str]:
    return [found.verdict for found in labels.valid_labels_by_sha256(out, purpose, POLICY).values()]


def test_a_label_is_read_as_it_was_given(tmp_path: Path) -> None:
    given = labels.label_with_policy(
        label(PICTURES[0], "reject", why='é "\n\x7f\u2028'), POLICY, asked_for="borderline", reason="off-style"
    )
    given = given.model_copy(update={"shown_traits": {"hat": "none"}, "seconds": 1.25})
    (stored,) = labels.append_labels(tmp_path, "review", [given])
    (found,) = labels.read_stored_labels(tmp_path, "review")
    assert found == stored == given.model_copy(update={"id": found.id, "time": found.time})
    assert uuid.UUID(found.id) and found.time.endswith("Z")
    (row,) = store.read_all_label_store_rows(tmp_path)
    assert row.hash == files.canonical_sha256({n: v for n, v in row._asdict().items() if n != "hash"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.sqlite"]


def test_the_same_id_is_the_same_label(tmp_path: Path) -> None:
    """A request that is sent again, and a double click."""
    given = labels.label_with_policy(label(PICTURES[0]), POLICY, id=str(uuid.uuid4()))
    first = labels.append_labels(tmp_path, "review", [given])
    assert labels.append_labels(tmp_path, "review", [given, given]) == [*first, *first]
    other = labels.label_with_policy(label(PICTURES[1]), POLICY)
    wrong: list[tuple[labels.Purpose, labels.StoredLabel]]
    wrong = [("review", given.model_copy(update={"verdict": "reject"})), ("audit", given)]
    for purpose, changed in wrong:
        with pytest.raises(DataError, match="is of row 1, which says something else"):
            labels.append_labels(tmp_path, purpose, [other, changed])
    assert labels.read_stored_labels(tmp_path, "review") == first and not labels.read_stored_labels(tmp_path, "audit")


def test_an_undo_brings_back_what_was_before_at_any_depth(tmp_path: Path) -> None:
    given = give(tmp_path, "accept", "unsure", "reject")
    for left in ("unsure", "accept"):
        labels.append_undo(tmp_path, "review", given.pop().id, "anna")
        assert counting(tmp_path) == [left]
    undo = str(uuid.uuid4())
    for _ in range(2):
        labels.append_undo(tmp_path, "review", given[0].id, "anna", undo)
    assert counting(tmp_path) == []
    again = str(uuid.uuid4())
    labels.append_undo(tmp_path, "review", undo, "anna", again)
    assert counting(tmp_path) == ["accept"]
    labels.append_undo(tmp_path, "review", again, "anna")
    assert counting(tmp_path) == [] and [one.withdrawn for one in labels.read_stored_labels(tmp_path, "review")] == [
        *(True, True, True),
    ]
    wrong: list[tuple[labels.Purpose, str]] = [("review", str(uuid.uuid4())), ("audit", given[0].id)]
    for purpose, unknown in wrong:
        with pytest.raises(DataError, match="cannot be taken back"):
            labels.append_undo(tmp_path, purpose, unknown, "anna")


def test_an_answer_of_an_audit_is_taken_back_at_once_or_never(tmp_path: Path) -> None:
    first, second = give(tmp_path, "accept", "reject", purpose="audit")
    give(tmp_path, "accept")
    labels.append_undo(tmp_path, "audit", second.id, "anna")
    with pytest.raises(DataError, match="stay once the next answer is given"):
        labels.append_undo(tmp_path, "audit", first.id, "anna")
    assert counting(tmp_path, "audit") == ["accept"]


@pytest.mark.parametrize("purpose", ["audit", "calibrate"])
def test_a_reject_of_an_audit_stays_one(tmp_path: Path, purpose: labels.Purpose) -> None:
    """Of two people who look at once, and of two tabs."""
    given = give(tmp_path, "accept", "unsure", purpose=purpose)
    other = labels.label_with_policy(label(PICTURES[1], who="ben"), POLICY)
    again = labels.label_with_policy(label(PICTURES[0], who="ben"), POLICY)
    with pytest.raises(
        DataError, match=r"do not turn a reject into a good picture:\n  - 000.*unsure \(anna\).*\(ben\)"
    ):
        labels.append_labels(tmp_path, purpose, [other, again])
    assert counting(tmp_path, purpose) == ["unsure"]
    assert labels.append_labels(tmp_path, purpose, [given[0], other])[0] == given[0], "sent again, it is no new one"
    labels.append_labels(tmp_path, purpose, [again.model_copy(update={"policy_sha256": "other"})])
    labels.append_labels(tmp_path, purpose, [again.model_copy(update={"asked_for": "known"})])


def test_labels_that_measure_a_person_decide_nothing(tmp_path: Path) -> None:
    for purpose in labels.PURPOSES:
        give(tmp_path, "accept", purpose=purpose)
        for asked_for in ("known", "repeat"):
            measured = labels.label_with_policy(label(PICTURES[0], "reject"), POLICY, asked_for=asked_for)
            labels.append_labels(tmp_path, purpose, [measured])
        assert counting(tmp_path, purpose) == ["accept"] and len(labels.read_stored_labels(tmp_path, purpose)) == 3
    (tmp_path / "other.yaml").write_text("guideline: another\n" + ALL_PASS)
    other = policyfile.read_policy(str(tmp_path / "other.yaml"))
    assert labels.labels_rejecting_under_other_policies(tmp_path, other) == {}


def edit(out: Path, *statements: str, triggers: bool = True) -> None:
    """Change the store as somebody with sqlite3 would, and put the triggers back so that nothing is seen of it."""
    with contextlib.closing(sqlite3.connect(out / store.STORE, isolation_level=None)) as connection:
        for name in ("no_update", "no_delete"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for trigger in store.SCHEMA[1:] if triggers else ():
            connection.execute(trigger)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE row SET content = replace(content, 'reject', 'accept') WHERE number = 2", "row 2 was changed"),
        *((f"UPDATE row SET {name} = 'x' WHERE number = 3", "row 3") for name in ("id", "time", "purpose", "kind")),
        ("UPDATE row SET number = 9 WHERE number = 3", "row 3 is missing"),
        ("UPDATE row SET hash = 'x' WHERE number = 1", "row 1 was changed"),
        ("UPDATE row SET previous = 'x' WHERE number = 2", "row 2 is missing, or is not the one"),
        ("DELETE FROM row WHERE number = 1", "row 1 is missing"),
        ("DELETE FROM row WHERE number = 2", "row 2 is missing"),
        ("DELETE FROM row WHERE number = 3", "row 3 is missing"),
        ("DELETE FROM row", "row 1 is missing"),
    ],
)
def test_every_change_of_a_row_is_found(tmp_path: Path, statement: str, says: str) -> None:
    give(tmp_path, "accept", "reject", "accept")
    edit(tmp_path, statement)
    with pytest.raises(DataError, match=f"labels.sqlite does not hold: {says}"):
        labels.valid_labels_by_sha256(tmp_path, "review", POLICY)


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    give(tmp_path, "accept")
    with contextlib.closing(sqlite3.connect(tmp_path / store.STORE)) as connection:
        for change in ("UPDATE row SET who = 'x'", "UPDATE row SET content = 'x'", "DELETE FROM row"):
            with pytest.raises(sqlite3.DatabaseError):
                connection.execute(change)
    edit(tmp_path, triggers=False)
    for content in (None, b"nothing of the kind", b""):
        if content is not None:
            (tmp_path / store.STORE).write_bytes(content)
        for act in (lambda: store.read_all_label_store_rows(tmp_path), lambda: give(tmp_path, "accept")):
            with pytest.raises(DataError, match=r"labels.sqlite (is damaged|has not the tables)"):
                act()


def test_a_head_changes_with_its_own_purpose_alone(tmp_path: Path) -> None:
    assert store.last_row_hash_by_purpose(tmp_path) == dict.fromkeys(labels.PURPOSES)
    (first,) = give(tmp_path, "accept")
    before = store.last_row_hash_by_purpose(tmp_path)
    give(tmp_path, "reject", purpose="audit")
    after = store.last_row_hash_by_purpose(tmp_path)
    assert (
        after["review"] == before["review"] == store.read_all_label_store_rows(tmp_path)[0].hash
        and after["audit"] != before["audit"]
    )
    labels.append_undo(tmp_path, "review", first.id, "anna")
    assert store.last_row_hash_by_purpose(tmp_path)["review"] not in (None, before["review"])


def test_what_is_read_in_one_moment_is_the_same(tmp_path: Path) -> None:
    """A label that somebody gives while a gate judges is not judged, and the hash in its record is not that label's."""
    give(tmp_path, "accept")
    with store.frozen_label_store_reads():
        before = store.last_row_hash_by_purpose(tmp_path)
        other = threading.Thread(target=give, args=(tmp_path, "reject"))
        other.start()
        other.join()
        assert counting(tmp_path) == ["accept"] and store.last_row_hash_by_purpose(tmp_path) == before
        give(tmp_path, "unsure")
        assert counting(tmp_path) == ["unsure"], "but what it adds itself is seen"
    assert store.last_row_hash_by_purpose(tmp_path) != before and len(store.read_all_label_store_rows(tmp_path)) == 3


def older_files(out: Path) -> None:
    """Files as older versions wrote them, with a label that was taken back, one without `why`, and a torn line."""
    lines = {
        "audit.jsonl": [TERMS.json_data_without_defaults(), *(give_line(verdict) for verdict in ("accept", "reject"))],
        "decisions.jsonl": [give_line("accept"), give_line("reject"), give_line("reject") | {"withdrawn": True}] * 2,
    }
    lines["decisions.jsonl"].append({n: v for n, v in give_line("unsure").items() if n != "why"})
    for name, rows in lines.items():
        (out / name).write_text(files.json_lines_text(rows) + '{"torn')


def give_line(verdict: labels.LabelName) -> dict:
    return labels.label_with_policy(label(PICTURES[0], verdict), POLICY).json_data_without_defaults()


def whole_import(out: Path) -> bool:
    """Whether everything of the older files stands in the store, once."""
    kinds = [(row.purpose, row.kind) for row in store.read_all_label_store_rows(out)]
    twice = [("review", "label")] * 2 + [("review", "undo")] * 2
    expected = [*twice, *twice, ("review", "label")]
    assert labels.read_audit_or_calibration_terms(out, "audit", AuditTerms) == [TERMS]
    assert counting(out, "review") == ["unsure"] and counting(out, "audit") == ["reject"]
    return kinds == [*expected, ("audit", "terms"), ("audit", "label"), ("audit", "label")]


def test_files_of_older_versions_are_taken_in_once(tmp_path: Path) -> None:
    older_files(tmp_path)
    assert whole_import(tmp_path)
    names = {"labels.sqlite", "audit.jsonl.imported", "decisions.jsonl.imported"}
    assert {path.name for path in tmp_path.iterdir()} == names
    (tmp_path / "decisions.jsonl.imported").rename(tmp_path / "decisions.jsonl")  # as a kill before the renaming leaves
    files.append_jsonl(tmp_path / "decisions.jsonl", give_line("accept"))  # by an older version, which then went on
    assert counting(tmp_path) == ["accept"] and len(store.read_all_label_store_rows(tmp_path)) == 13
    (tmp_path / "decisions.jsonl").write_text(files.json_lines_text([give_line("reject")]))
    assert counting(tmp_path) == ["reject"]
    assert {path.name for path in tmp_path.iterdir()} == names | {"decisions.jsonl.imported-1"}


def test_a_damaged_file_of_an_older_version_is_not_taken_in(tmp_path: Path) -> None:
    older_files(tmp_path)
    for bad in ({"sha256": "x", "verdict": "accept", "who": "anna"}, {"lot": "x", "size": float("nan")}):
        held = (tmp_path / "audit.jsonl").read_text()
        (tmp_path / "audit.jsonl").write_text(json.dumps(bad) + "\n" + held)
        for act in (lambda: store.read_all_label_store_rows(tmp_path), lambda: give(tmp_path, "accept")):
            with pytest.raises(DataError, match=r"audit.jsonl is not as stylegate writes it:\n  - row 1: "):
                act()
        assert {name for name in OLDER_FILES.values() if (tmp_path / name).exists()} == {
            "audit.jsonl",
            "decisions.jsonl",
        }
        (tmp_path / "audit.jsonl").write_text(held)
    assert whole_import(tmp_path)


def test_a_folder_that_is_read_only_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what a killed process left in the write-ahead log, and with files of older versions."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    older_files(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert whole_import(tmp_path) and sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    assert whole_import(tmp_path)
    with store.open_label_store(tmp_path):  # keeps the log from being written into the store
        give(tmp_path, "reject")
        killed = tmp_path / "killed"
        killed.mkdir()
        for name in ("labels.sqlite", "labels.sqlite-wal"):
            (killed / name).write_bytes((tmp_path / name).read_bytes())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert counting(killed) == ["reject"] and len(list(killed.iterdir())) == 2


def started(out: Path, count: int, who: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(out), str(count), who]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=files.ROOT)


def kill_while_writing(out: Path, after: int) -> None:
    """Kill a process by SIGKILL as soon as it has acknowledged `after` labels; every one of them must be there."""
    process = started(out, 10_000, "anna")
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.wait()
    stored = [row.id for row in store.read_all_label_store_rows(out)]
    assert set(acknowledged) <= set(stored) and len(stored) - len(acknowledged) in (0, 1)


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    for number, after in enumerate((1, 7, 23)):
        kill_while_writing(tmp_path / str(number), after)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    processes = [started(tmp_path, 200, who) for who in ("anna", "ben")]
    given = [process.communicate(timeout=100)[0].split() for process in processes]
    found = labels.read_stored_labels(tmp_path, "review")
    assert [process.returncode for process in processes] == [0, 0] and len(found) == 400
    assert [[one.id for one in found if one.who == who] for who in ("anna", "ben")] == given


def test_who_waits_in_vain_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(tmp_path, "accept")
    monkeypatch.setattr(store, "WAIT_S", 0.01)
    with store.open_label_store(tmp_path) as connection, store.transaction(connection, "IMMEDIATE"):
        assert counting(tmp_path) == ["accept"], "reading waits for nobody"
        with pytest.raises(SurroundingsError, match=r"labels.sqlite cannot be used: database is locked"):
            give(tmp_path, "reject")


def test_many_threads_take_in_older_files_at_once(tmp_path: Path) -> None:
    older_files(tmp_path)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            store.read_all_label_store_rows(tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and whole_import(tmp_path)
