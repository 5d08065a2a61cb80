"""What people say of pictures: decisions of review, labels of calibration and audit. Each in a stream of its own.

    sha256,verdict,who,why         accept or reject (or unsure: in review it stays there, else it is a reject)

A table from people (stylegate/tables.py; `file` and `purpose` may stand beside), kept as JSON Lines in the batch's
folder. Labels of one stream never serve another: those of review are of borderline pictures, no random sample, so they
can never certify; those that a line was chosen by cannot prove it.
"""

import csv
import hashlib
import io
import re
import webbrowser
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from getpass import getuser
from pathlib import Path

from eval.lot.subject import Subject
from stylegate import files, tables
from stylegate.errors import DataError

STREAMS = {"review": "decisions.jsonl", "calibrate": "calibration.jsonl", "audit": "audit.jsonl"}
VERDICTS = ("accept", "reject", "unsure")
QUESTION = "a accept, r reject, u unsure (counts as a reject), q stop: "
ANSWERS = {"a": "accept", "r": "reject", "u": "unsure"}
COLUMNS = ("sha256", "verdict", "who", "why")


@dataclass(frozen=True, slots=True)
class Label:
    sha256: str
    verdict: str
    who: str
    why: str = ""

    @property
    def bad(self) -> bool:
        """Who is unsure would not export it."""
        return self.verdict != "accept"

    def words(self) -> str:
        return f"{self.who}: {self.why}" if self.why else self.who


def read_csv(path: Path, purpose: str, out: Path, known: Iterable[str]) -> list[Label]:
    """The labels of a file, in its order; rows without a verdict are left out (a worksheet half filled).

    Raises DataError listing every problem: columns, verdicts, pictures that are not `known` (decisions of review may
    be of many lots: others' are left out, and that is said), two verdicts of one picture, rows that another stream of
    the same batch holds.
    """
    table = tables.read(path)
    if table.problems:
        raise DataError(f"decisions={path} cannot be read:", table.problems, "mend the lines; none was taken.")
    if not {"sha256", "verdict", "who"} <= set(table.columns):
        raise DataError(f"decisions={path} needs a first line `sha256,verdict,who,why`, then a line a picture")
    others = rows_of_others(out, purpose)
    there, found, problems, elsewhere = set(known), {}, [], 0
    for number, row in table.rows:
        label = Label(*(str(row.get(name) or "").strip() for name in COLUMNS))
        if label.verdict == "" and row.get("sha256"):
            continue
        label = Label(label.sha256.lower(), label.verdict.lower(), label.who, label.why)
        declared = str(row.get("purpose") or "").strip()
        before = found.get(label.sha256)
        said = [
            (not re.fullmatch("[0-9a-f]{64}", label.sha256), "sha256 is not 64 hex digits"),
            (label.verdict not in VERDICTS, f"verdict {label.verdict!r} is none of {', '.join(VERDICTS)}"),
            (not label.who, "who is empty: somebody answers for each label"),
            (declared not in ("", purpose), f"is for {declared}; labels of one purpose never serve another"),
            (purpose != "review" and label.sha256 not in there, f"no picture here is {label.sha256[:12]}..."),
            (before is not None and before.verdict != label.verdict, "contradicts an earlier line of the same picture"),
            (not declared and label in others, f"this very row was given for {others.get(label)}: look afresh"),
        ]
        problem = next((text for holds, text in said if holds), None)
        if not problem and label.sha256 not in there:
            elsewhere += 1
        elif problem:
            problems.append(f"line {number}: {problem}")
        else:
            found[label.sha256] = label
    if problems:
        raise DataError(
            f"decisions={path}:", problems, "mend the lines and run the same command again; none was taken."
        )
    if elsewhere:
        print(f"note: {elsewhere} decisions are of pictures that are not here")
    return list(found.values())


def rows_of_others(out: Path, purpose: str) -> dict[Label, str]:
    """Every label of the batch's other streams, and which."""
    return {label: name for name in STREAMS if name != purpose for label in read(out, name)}


def read(out: Path, stream: str, **under: str) -> list[Label]:
    """A stream's labels in their order, those kept `under` these words. Raises DataError for a damaged stream."""
    path, found = out / STREAMS[stream], []
    for row in files.read_jsonl(path):
        if "sha256" not in row:
            continue  # what an audit or a calibration said before its first label
        if any(row.get(name) != value for name, value in under.items()):
            continue
        label = Label(*(str(row.get(name, "")) for name in COLUMNS))
        if label.verdict not in VERDICTS or not label.who or not re.fullmatch("[0-9a-f]{64}", label.sha256):
            raise DataError(
                f"{files.shown(path)} is not as stylegate writes it: {row}",
                next_step="remove it; labels that are in a CSV file can be given again.",
            )
        found.append(label)
    return found


def keep(out: Path, stream: str, labels: Iterable[Label], **under: str) -> None:
    """Append the labels that the stream does not hold yet."""
    last = {label.sha256: label for label in read(out, stream, **under)}
    for label in labels:
        if last.get(label.sha256) != label:
            files.append_jsonl(out / STREAMS[stream], asdict(label) | under)


def worksheet(path: Path, purpose: str, pictures: Iterable[tuple[str, str]], given: Path | None) -> None:
    """A CSV file to fill in: file and sha256 of each picture; it opens in any spreadsheet.

    One that somebody has begun to fill in stays, unless it is the file that was just `given`.
    """
    if path.exists() and path.resolve() != (given.resolve() if given else None) and filled(path):
        print(f"note: {files.shown(path)} has verdicts: it stays as it is; give it with decisions=")
        return
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["file", *COLUMNS, "purpose"])
    writer.writerows([name, sha256, "", "", "", purpose] for name, sha256 in pictures)
    files.write(path, sheet.getvalue())


def filled(path: Path) -> bool:
    """Whether a worksheet has any verdict, or cannot be read any more: nobody's work is overwritten."""
    table = tables.read(path)
    return bool(table.problems) or any(str(row.cells.get("verdict") or "").strip() for row in table.rows)


def offered(
    path: Path, stream: str, out: Path, known: Iterable[str], **under: str
) -> tuple[dict[str, Label], dict[str, Label]]:
    """The labels that a stream holds, and those that a file gives, by sha256.

    Raises DataError for one that contradicts another: who may take a label back could wait for a better one.
    """
    found = {label.sha256: label for label in read_csv(path, stream, out, known)}
    before = {label.sha256: label for label in read(out, stream, **under)}
    turned = [s for s, label in found.items() if s in before and before[s].bad != label.bad]
    if turned:
        listing = [f"{s[:12]}...: was {before[s].verdict} ({before[s].who}), is {found[s].verdict}" for s in turned]
        raise DataError(f"labels of the stream {stream} do not change:", listing, "take those lines out of the file.")
    return before, found


def shuffled(purpose: str, pictures: Iterable[str]) -> list[str]:
    """sha256 in a random order that follows from which they are: anyone computes the same, in any language."""
    seed = order_seed(purpose, pictures := list(pictures))
    return sorted(pictures, key=lambda sha256: hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest())


def order_seed(purpose: str, pictures: Iterable[str]) -> str:
    return files.digest([f"stylegate-{purpose}-1", sorted(pictures)])


def up_to_a_gap(order: Iterable[str], known: dict[str, Label]) -> list[Label]:
    found = []
    for sha256 in order:
        if sha256 not in known:
            break
        found.append(known[sha256])
    return found


def ask(subject: Subject, sha256: str, where: str) -> Label | None:
    """Open one picture and ask in the terminal; None to stop."""
    name = next(name for name, content in subject.sha256.items() if content == sha256)
    webbrowser.open(dict(subject.named)[name].as_uri())
    answer = ""
    while answer not in (*ANSWERS, "q"):
        try:
            answer = input(f"{where}  {name}   {QUESTION}").strip().lower()[:1]
        except EOFError:
            answer = "q"
    return None if answer == "q" else Label(sha256, ANSWERS[answer], getuser())
