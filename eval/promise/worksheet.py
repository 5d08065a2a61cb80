"""Tables of labels: the CSV files that people fill in, and the ones that stylegate writes for that.

    sha256,verdict,who,why         accept, reject or unsure

`file` may stand instead of `sha256`. The columns `purpose`, `policy_sha256` and `reasons` of a worksheet say what its
rows were asked for: a row counts for that alone.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.lot.lot import Lot
from eval.policy.model import Policy
from eval.promise.labels import STREAMS, Label, Purpose, StoredLabel, read_stored_labels, valid_labels_by_sha256
from stylegate import files, tables
from stylegate.errors import DataError
from stylegate.words import counted

VERDICTS = ("accept", "reject", "unsure")
COLUMNS = ("file", "sha256", "verdict", "who", "why", "prompt", "reasons", "purpose", "policy_sha256")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # a spreadsheet may run a cell that begins with one of the first


@dataclass(frozen=True, slots=True)
class Answer:
    """A row that a person filled in."""

    label: Label
    policy_sha256: str  # under which it was asked for; empty where the table does not say
    checks: list[str] | None  # the reasons that it was asked about; None where the table does not say


@dataclass(frozen=True, slots=True)
class Question:
    """A row for a person to fill in."""

    file: str
    sha256: str
    prompt: str = ""
    reasons: tuple[str, ...] = ()  # names of the checks for which the picture stands in review


def read_answers(path: Path, purpose: Purpose, out: Path, pictures: Mapping[str, str], policy: Policy) -> list[Answer]:
    """The answers of a table about these pictures (sha256 by name), in its order; rows without a verdict are left out.

    A table of decisions may be of many lots and policies: rows of others are left out, and a note says how many.
    Raises DataError listing every problem: columns, verdicts, labels of pictures that are not here or of another
    policy, two verdicts about one picture, rows that were given for another purpose or, as labels, under another
    policy.
    """
    table = tables.read_table(path)
    if table.problems:
        raise DataError(f"decisions={path} cannot be read:", table.problems, "mend the lines; none was used.")
    if not ({"verdict", "who"} <= set(table.columns) and {"sha256", "file"} & set(table.columns)):
        raise DataError(
            f"decisions={path} needs a first line `sha256,verdict,who,why`, then a line a picture",
            next_step="`file` may stand instead of `sha256`.",
        )
    here, elsewhere_given = set(pictures.values()), rows_of_other_purposes(out, purpose)
    under_others = rows_of_other_policies(out, purpose, policy) if purpose != "review" else set()
    found: dict[str, Answer] = {}
    problems, elsewhere, other_policy = [], 0, 0
    for number, row in table.rows:
        cells = {name: str(value if value is not None else "").strip() for name, value in row.items()}
        if not cells.get("verdict") and (cells.get("sha256") or cells.get("file")):
            continue
        sha256, verdict = cells.get("sha256", "").lower(), cells["verdict"].lower()
        problem = ""
        if not sha256:
            sha256, problem = picture_named(unescape_formula_cell(str(row.get("file") or "")), pictures)
        who, declared, policy_sha256 = (
            unescape_formula_cell(cells["who"]),
            cells.get("purpose", ""),
            cells.get("policy_sha256", "").lower(),
        )
        before, words = found.get(sha256), (sha256, verdict, who, unescape_formula_cell(cells.get("why", "")))
        checks = [
            (problem != "", problem),
            (sha256 != "" and not re.fullmatch("[0-9a-f]{64}", sha256), "sha256 is not 64 hex digits"),
            (verdict not in VERDICTS, f"verdict {verdict!r} is none of {', '.join(VERDICTS)}"),
            (
                name_and_digest_disagree(unescape_formula_cell(str(row.get("file") or "")), sha256, pictures),
                f"file and sha256 are of two pictures: {cells.get('file')} is not {sha256[:12]}...: correct one",
            ),
            (not who, "who is empty: somebody answers for each label"),
            (declared not in ("", purpose), f"is for {declared}; labels of one purpose never serve another"),
            (purpose != "review" and sha256 not in here, f"no picture here is {sha256[:12]}..."),
            (
                purpose != "review" and policy_sha256 not in ("", policy.sha256),
                "was asked for under another policy or guideline: look afresh, and fill in the new worksheet",
            ),
            (before is not None and before.label.verdict != verdict, "contradicts an earlier line of the same picture"),
            (
                not declared and words in elsewhere_given,
                f"this very row was given for {elsewhere_given.get(words)}: look afresh",
            ),
            (
                not policy_sha256 and words in under_others,
                "this very row was given under another policy or guideline: look afresh, and fill in the new worksheet",
            ),
        ]
        problem = next((text for holds, text in checks if holds), "")
        if problem:
            problems.append(f"line {number}: {problem}")
        elif sha256 not in here:
            elsewhere += 1
        elif policy_sha256 not in ("", policy.sha256):
            other_policy += 1
        else:
            label = Label.model_validate(dict(zip(("sha256", "verdict", "who", "why"), words, strict=True)))
            reasons = [name.strip() for name in cells["reasons"].split(",")] if cells.get("reasons") else None
            found[sha256] = Answer(label, policy_sha256, reasons)
    if problems:
        raise DataError(f"decisions={path}:", problems, "mend the lines and run the same command again; none was used.")
    if elsewhere:
        print(f"note: {counted(elsewhere, 'decision is', 'decisions are')} about pictures that are not here")
    if other_policy:
        were = counted(other_policy, "decision was", "decisions were")
        print(f"note: {were} asked for under another policy or guideline: not used here")
    return list(found.values())


def picture_named(name: str, pictures: Mapping[str, str]) -> tuple[str, str]:
    """(sha256, "") of the picture with this name, or ("", the problem as a sentence). The file name alone is enough."""
    if name in pictures:
        return pictures[name], "" if pictures[name] else f"{name} cannot be read: give its sha256"
    matching = [path for path in pictures if name and path.rpartition("/")[2] == name]
    if len(matching) == 1:
        return picture_named(matching[0], pictures)
    if matching:
        return "", f"{len(matching)} pictures are called {name}: write the path below the folder, as {matching[0]}"
    return "", f"no picture here is called {name!r}" if name else "neither sha256 nor file"


def name_and_digest_disagree(name: str, sha256: str, pictures: Mapping[str, str]) -> bool:
    """Whether `name` and `sha256` are both known here (`pictures`: sha256 by name) but belong to different pictures.

    False if one of them is unknown: the row is about another lot, or the file was renamed.
    """
    same = [name] if name in pictures else [path for path in pictures if path.rpartition("/")[2] == name]
    return bool(same) and sha256 in pictures.values() and sha256 not in {pictures[path] for path in same}


def row_of(label: Label) -> tuple[str, str, str, str]:
    return label.sha256, label.verdict, label.who, label.why


def rows_of_other_purposes(out: Path, purpose: Purpose) -> dict[tuple[str, ...], str]:
    """For each label that was stored for another purpose: its row (sha256, verdict, who, why) -> that purpose."""
    return {row_of(label): name for name in STREAMS if name != purpose for label in read_stored_labels(out, name)}


def rows_of_other_policies(out: Path, purpose: Purpose, policy: Policy) -> set[tuple[str, ...]]:
    """Rows (sha256, verdict, who, why) that were given as labels under another policy, and not under this one."""
    labels = read_stored_labels(out, purpose)
    others = {row_of(label) for label in labels if label.policy_sha256 != policy.sha256}
    return others - {row_of(label) for label in labels if label.policy_sha256 == policy.sha256}


def questions(lot: Lot, pictures: Iterable[str]) -> list[Question]:
    """A row to fill in for each of these pictures (sha256), with its name and, in a batch, its prompt."""
    names = {sha256: name for name, sha256 in lot.sha256.items()}
    slots = lot.slots or {}
    return [Question(names[s], s, slots[names[s]].prompt if names[s] in slots else "") for s in pictures]


def write_worksheet(
    path: Path, purpose: Purpose, questions: Iterable[Question], policy: Policy, given: Path | None
) -> None:
    """Write a CSV file with a row for each picture, to fill in with any spreadsheet or editor.

    A file in which somebody has begun to write verdicts stays as it is, unless it is the file that was just `given`.
    """
    if path.exists() and path.resolve() != (given.resolve() if given else None) and has_verdicts(path):
        print(f"note: {files.display_path(path)} has verdicts: it stays as it is; give it with decisions=")
        return
    sheet = io.StringIO()
    writer = csv.writer(sheet)  # lines end in CR LF: with other line ends a CR in a name is not quoted
    writer.writerow(COLUMNS)
    for q in questions:
        row = [q.file, q.sha256, "", "", "", q.prompt, ", ".join(q.reasons), purpose, policy.sha256]
        writer.writerow([escape_formula_cell(cell) for cell in row])
    files.write_atomically(path, sheet.getvalue())


def escape_formula_cell(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet might run it as a formula.

    `unescape_formula_cell` takes the apostrophe away again.
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def unescape_formula_cell(text: str) -> str:
    """The text of a cell without the apostrophe that `escape_formula_cell` put before it."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def has_verdicts(path: Path) -> bool:
    """Whether a worksheet has any verdict, or cannot be read any more: nobody's work is overwritten."""
    table = tables.read_table(path)
    return bool(table.problems) or any(str(row.cells.get("verdict") or "").strip() for row in table.rows)


def labels_and_answers(
    path: Path, purpose: Purpose, out: Path, pictures: Mapping[str, str], policy: Policy, under: str = ""
) -> tuple[dict[str, StoredLabel], dict[str, Label]]:
    """Two mappings by sha256: the stored labels that count already, and the new labels that a table gives.

    Raises DataError if an answer turns a stored label from good to reject or back: labels cannot be changed.
    """
    found = {answer.label.sha256: answer.label for answer in read_answers(path, purpose, out, pictures, policy)}
    before = valid_labels_by_sha256(out, purpose, policy, under)
    changed = [s for s, label in found.items() if s in before and before[s].is_reject != label.is_reject]
    if changed:
        lines = [f"{s[:12]}...: was {before[s].verdict} ({before[s].who}), is {found[s].verdict}" for s in changed]
        raise DataError(f"labels of the stream {purpose} do not change:", lines, "remove those lines from the file.")
    return before, found
