"""Tables of labels: the CSV files that people fill in, and the ones that stylegate writes for that.

    sha256,verdict,who,why         accept, reject or unsure

`file` may stand instead of `sha256`. A column `shows` may say which traits a picture shows otherwise than planned, as
`headwear: none; item: book`. The columns `purpose`, `policy_sha256` and `reasons` of a worksheet say what its
rows were asked for: a row counts for that alone.
"""

import csv
import io
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.lot.lot import Lot
from eval.policy.model import Policy
from eval.promise import store
from eval.promise.labels import (
    PURPOSES,
    Label,
    Purpose,
    StoredLabel,
    labels_for_purpose_from_rows,
    read_stored_labels,
    valid_labels_by_sha256,
)
from stylegate import files, tables
from stylegate.errors import DataError
from stylegate.words import counted

VERDICTS = ("accept", "reject", "unsure")
LISTED = 12  # values of a trait that a message lists
COLUMNS = ("file", "sha256", "verdict", "who", "why", "shows", "prompt", "reasons", "purpose", "policy_sha256")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # a spreadsheet may run a cell that begins with one of the first


@dataclass(frozen=True, slots=True)
class WorksheetAnswer:
    """A row that a person filled in."""

    label: Label
    policy_sha256: str  # under which it was asked for; empty where the table does not say
    checks: list[str] | None  # the reasons that it was asked about; None where the table does not say
    shows: str = ""  # traits that the picture shows otherwise than planned, as it was written


@dataclass(frozen=True, slots=True)
class WorksheetQuestion:
    """A row for a person to fill in."""

    file: str
    sha256: str
    prompt: str = ""
    reasons: tuple[str, ...] = ()  # names of the checks for which the picture stands in review


class PictureNameLookup:
    """The pictures that a table may speak of, found by their name, by its last part alone, or by their sha256."""

    def __init__(self, sha256_by_name: Mapping[str, str]) -> None:
        """`sha256_by_name` has "" for a picture that cannot be read."""
        self.sha256_by_name, self.digests = sha256_by_name, set(sha256_by_name.values())
        self.names_by_last_part: dict[str, list[str]] = {}
        for name in sha256_by_name:
            self.names_by_last_part.setdefault(name.rpartition("/")[2], []).append(name)

    def full_names_for_short_picture_name(self, name: str) -> list[str]:
        """The names of the pictures that `name` may mean: itself, else those whose last part it is."""
        return [name] if name in self.sha256_by_name else self.names_by_last_part.get(name, [])

    def digest_or_problem_of_picture(self, name: str) -> tuple[str, str]:
        """(sha256, "") of the picture with this name, or ("", the problem as a sentence). The last part of a name is
        enough.
        """
        matching = self.full_names_for_short_picture_name(name) if name else []
        if len(matching) > 1:
            return "", f"{len(matching)} pictures are called {name}: write the path below the folder, as {matching[0]}"
        if not matching:
            return "", f"no picture here is called {name!r}" if name else "neither sha256 nor file"
        sha256 = self.sha256_by_name[matching[0]]
        return sha256, "" if sha256 else f"{matching[0]} cannot be read: give its sha256"

    def name_and_digest_contradict(self, name: str, sha256: str) -> bool:
        """Whether `name` and `sha256` are both known here, and of two pictures.

        False if one of them is unknown: the row is about another lot, or the file was renamed.
        """
        same = {self.sha256_by_name[one] for one in self.full_names_for_short_picture_name(name)}
        return bool(same) and sha256 in self.digests and sha256 not in same


def read_worksheet_answers(
    path: Path,
    purpose: Purpose,
    out: Path,
    pictures: Mapping[str, str],
    policy: Policy,
    problems_of_shows: Callable[[str, str], list[str]] = lambda sha256, shows: [],
) -> list[WorksheetAnswer]:
    """The answers in a table (CSV or JSON Lines), one for each picture of `pictures` (file name -> sha256), in the
    table's order. A row that names a picture and has neither a verdict nor traits in `shows` is left out.

    A table of decisions may be of many lots and policies: rows of others are left out, and a note says how many.
    `problems_of_shows` says of a picture (sha256) what is wrong with its cell `shows`. Raises DataError listing every
    problem with its line: columns, verdicts, labels of pictures that are not here or of another
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
    named, elsewhere_given = PictureNameLookup(pictures), other_purpose_by_stored_label_key(out, purpose)
    under_others = stored_label_keys_of_other_policies(out, purpose, policy) if purpose != "review" else set()
    found: dict[str, WorksheetAnswer] = {}
    problems, elsewhere, other_policy = [], 0, 0
    for number, row in table.rows:
        cells = {name: str(value if value is not None else "").strip() for name, value in row.items()}
        if not cells.get("verdict") and not cells.get("shows") and (cells.get("sha256") or cells.get("file")):
            continue
        sha256, verdict = cells.get("sha256", "").lower(), cells.get("verdict", "").lower()
        problem = ""
        if not sha256:
            sha256, problem = named.digest_or_problem_of_picture(unescape_formula_cell(str(row.get("file") or "")))
        who, declared, policy_sha256 = (
            unescape_formula_cell(cells.get("who", "")),
            cells.get("purpose", ""),
            cells.get("policy_sha256", "").lower(),
        )
        before, words = found.get(sha256), (sha256, verdict, who, unescape_formula_cell(cells.get("why", "")))
        shows = unescape_formula_cell(cells.get("shows", ""))
        about_picture = [
            (problem != "", problem),
            (not re.fullmatch("[0-9a-f]{64}", sha256), "sha256 is not 64 hex digits"),
            (
                named.name_and_digest_contradict(unescape_formula_cell(str(row.get("file") or "")), sha256),
                f"file and sha256 are of two pictures: {cells.get('file')} is not {sha256[:12]}...: correct one",
            ),
            (purpose != "review" and sha256 not in named.digests, f"no picture here is {sha256[:12]}..."),
        ]
        about_verdict = [
            (verdict not in VERDICTS, f"verdict {verdict!r} is none of {', '.join(VERDICTS)}"),
            (before is not None and before.label.verdict != verdict, "contradicts an earlier line of the same picture"),
        ]
        about_purpose = [
            (declared not in ("", purpose), f"is for {declared}; labels of one purpose never serve another"),
            (
                purpose != "review" and policy_sha256 not in ("", policy.sha256),
                "was asked for under another policy or guideline: look afresh, and fill in the new worksheet",
            ),
            (
                not declared and words in elsewhere_given,
                f"this very row was given for {elsewhere_given.get(words)}: look afresh",
            ),
            (
                not policy_sha256 and words in under_others,
                "this very row was given under another policy or guideline: look afresh, and fill in the new worksheet",
            ),
        ]
        about_who = [(not who, "who is empty: somebody answers for each label")]
        # What is wrong with a part of the row follows from its first problem; the parts are looked at apart.
        parts = (about_picture, about_verdict, about_who, about_purpose)
        wrong = [text for part in parts if (text := next((text for holds, text in part if holds), ""))]
        wrong += (
            problems_of_shows(sha256, shows) if sha256 in named.digests and policy_sha256 in ("", policy.sha256) else []
        )
        if wrong:
            problems += [f"line {number}: {text}" for text in wrong]
        elif sha256 not in named.digests:
            elsewhere += 1
        elif policy_sha256 not in ("", policy.sha256):
            other_policy += 1
        else:
            label = Label.model_validate(dict(zip(("sha256", "verdict", "who", "why"), words, strict=True)))
            reasons = [name.strip() for name in cells["reasons"].split(",")] if cells.get("reasons") else None
            found[sha256] = WorksheetAnswer(label, policy_sha256, reasons, shows)
    if problems:
        raise DataError(f"decisions={path}:", problems, "mend the lines and run the same command again; none was used.")
    if elsewhere:
        print(f"note: {counted(elsewhere, 'decision is', 'decisions are')} about pictures that are not here")
    if other_policy:
        were = counted(other_policy, "decision was", "decisions were")
        print(f"note: {were} asked for under another policy or guideline: not used here")
    return list(found.values())


def parse_trait_and_value_shown(text: str, values: Mapping[str, Collection[str]]) -> tuple[str, str]:
    """The trait and the value that the column `shows` names, "Hat: none" or only a value of one of the traits alone.

    `values` has the values of each trait that may be named. Raises ValueError with what is wrong, and what may stand
    there.
    """
    before, colon, after = (part.strip() for part in text.partition(":"))
    if colon and after in values.get(before, ()):
        return before, after
    owners = [trait for trait, known in values.items() if text.strip() in known]
    if len(owners) == 1:
        return owners[0], text.strip()
    if owners:
        raise ValueError(f"{text} is a value of {' and of '.join(owners)}; write as in `{owners[0]}: {text.strip()}`")
    trait, value = (before, after) if colon and before in values else (next(iter(values), ""), text.strip())
    if not values or (len(values) != 1 and trait != before):
        named = ", ".join(values) or "none"
        raise ValueError(f"{text}, which names no trait of its plan with a value of it; the traits are {named}")
    known = sorted(values[trait])
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    raise ValueError(f"{trait}: {value}, which is no value of the plan; {trait} has {', '.join(known[:LISTED])}{more}")


def comparison_key_of_label(label: Label) -> tuple[str, str, str, str]:
    """(sha256, verdict, who, why) of a label, to compare it with `comparison_key_of_worksheet_row`."""
    return label.sha256, label.verdict, label.who, label.why


def other_purpose_by_stored_label_key(out: Path, purpose: Purpose) -> dict[tuple[str, ...], str]:
    """For each label that was stored for another purpose: its row (sha256, verdict, who, why) -> that purpose."""
    rows = store.read_all_label_store_rows(out)
    return {
        comparison_key_of_label(label): name
        for name in PURPOSES
        if name != purpose
        for label in labels_for_purpose_from_rows(rows, name, out)
    }


def stored_label_keys_of_other_policies(out: Path, purpose: Purpose, policy: Policy) -> set[tuple[str, ...]]:
    """Rows (sha256, verdict, who, why) that were given as labels under another policy, and not under this one."""
    labels = read_stored_labels(out, purpose)
    others = {comparison_key_of_label(label) for label in labels if label.policy_sha256 != policy.sha256}
    return others - {comparison_key_of_label(label) for label in labels if label.policy_sha256 == policy.sha256}


def worksheet_questions(lot: Lot, pictures: Iterable[str]) -> list[WorksheetQuestion]:
    """A row to fill in for each of these pictures (sha256), with its name and, in a batch, its prompt."""
    names = {sha256: name for name, sha256 in lot.sha256.items()}
    slots = lot.slots or {}
    return [WorksheetQuestion(names[s], s, slots[names[s]].prompt if names[s] in slots else "") for s in pictures]


def write_worksheet(
    path: Path, purpose: Purpose, questions: Iterable[WorksheetQuestion], policy: Policy, pictures: Mapping[str, str]
) -> None:
    """Write a CSV file with a row for each picture, to fill in with any spreadsheet or editor.

    What a person wrote into the file before stays in it, unless it is stored and has settled its picture. `pictures`
    are those of the lot, sha256 by name. A file with answers that cannot stand beside the new questions (it is damaged,
    or they were asked for under another policy) is renamed, and a note says so.
    """
    table = tables.read_table(path) if path.exists() else tables.TableFileContent([], [], [])
    stored = {comparison_key_of_label(label) for label in read_stored_labels(path.parent, purpose)}
    written, named = rows_with_answers(table), PictureNameLookup(pictures)
    waiting = [row for row in written if comparison_key_of_worksheet_row(row, named) not in stored]
    if table.problems or not all(row_has_purpose_and_policy(row, purpose, policy) for row in waiting):
        aside = unused_sibling_path(path)
        path.rename(aside)
        print(f"note: {files.display_path(path)} was asked for otherwise, or is damaged; now it is {aside.name}")
        written = waiting = []
    rows = {q.sha256 or q.file: question_as_row(q, purpose, policy) for q in questions}
    for row in written:
        sha256, verdict, _, why = label = comparison_key_of_worksheet_row(row, named)
        unsettled = label not in stored or (verdict == "unsure" and row_has_purpose_and_policy(row, purpose, policy))
        if unsettled and (sha256 in rows or (label not in stored and (verdict or why))):
            rows[sha256 or row.get("file", "")] = row
    own_columns = [name for name in table.columns if name not in COLUMNS and written]
    sheet = io.StringIO()
    writer = csv.writer(sheet)  # lines end in CR LF: with other line ends a CR in a name is not quoted
    writer.writerow([*COLUMNS, *own_columns])
    writer.writerows([row.get(name, "") for name in (*COLUMNS, *own_columns)] for row in rows.values())
    files.write_atomically(path, sheet.getvalue())
    if count := sum(bool(row.get("verdict", "").strip()) for row in waiting):
        answers = counted(count, "answer that is not stored yet", "answers that are not stored yet")
        print(f"note: {files.display_path(path)} has {answers}; give it with decisions=")


def remove_worksheet(path: Path, purpose: Purpose, pictures: Mapping[str, str]) -> None:
    """Remove a worksheet that nobody needs to fill in any more, if there is one. One with answers that are not stored
    is renamed instead, and a note says so. `pictures` are those of the lot, sha256 by name.
    """
    if not path.exists():
        return
    table, named = tables.read_table(path), PictureNameLookup(pictures)
    stored = {comparison_key_of_label(label) for label in read_stored_labels(path.parent, purpose)}
    waiting = [row for row in rows_with_answers(table) if comparison_key_of_worksheet_row(row, named) not in stored]
    if not table.problems and not waiting:
        path.unlink()
        return
    aside = unused_sibling_path(path)
    path.rename(aside)
    what = counted(len(waiting), "answer that was not needed", "answers that were not needed") if waiting else "damage"
    print(f"note: {files.display_path(path)} has {what}; now it is {aside.name}")


def question_as_row(question: WorksheetQuestion, purpose: Purpose, policy: Policy) -> dict[str, str]:
    """The row of a worksheet that asks about a picture, by column."""
    asked = question.file, question.sha256, "", "", "", "", question.prompt, ", ".join(question.reasons)
    cells = (*asked, purpose, policy.sha256)
    return {name: escape_formula_cell(cell) for name, cell in zip(COLUMNS, cells, strict=True)}


def rows_with_answers(table: tables.TableFileContent) -> list[dict[str, str]]:
    """The rows of a worksheet in which a person wrote anything, by column."""
    rows = [{name: str(value if value is not None else "") for name, value in row.cells.items()} for row in table.rows]
    return [row for row in rows if any(row.get(name, "").strip() for name in ("verdict", "who", "why", "shows"))]


def row_has_purpose_and_policy(row: Mapping[str, str], purpose: Purpose, policy: Policy) -> bool:
    """Whether a row of a worksheet was asked for this purpose under this policy, or does not say for which."""
    stated = row.get("purpose", "").strip(), row.get("policy_sha256", "").strip()
    return stated[0] in ("", purpose) and stated[1] in ("", policy.sha256)


def comparison_key_of_worksheet_row(row: Mapping[str, str], named: PictureNameLookup) -> tuple[str, str, str, str]:
    """(sha256, verdict, who, why) of a worksheet's row, as they are stored; the sha256 is "" if it is not known."""
    sha256 = row.get("sha256", "").strip().lower()
    sha256 = sha256 or named.digest_or_problem_of_picture(unescape_formula_cell(row.get("file", "")))[0]
    who, why = (unescape_formula_cell(row.get(name, "").strip()) for name in ("who", "why"))
    return sha256, row.get("verdict", "").strip().lower(), who, why


def unused_sibling_path(path: Path) -> Path:
    """A name beside `path` that no file has: review-1.csv, review-2.csv, ... for review.csv."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def escape_formula_cell(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet might run it as a formula.

    `unescape_formula_cell` takes the apostrophe away again.
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def unescape_formula_cell(text: str) -> str:
    """The text of a cell without the apostrophe that `escape_formula_cell` put before it."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def stored_labels_and_worksheet_labels(
    path: Path, purpose: Purpose, out: Path, pictures: Mapping[str, str], policy: Policy, under: str = ""
) -> tuple[dict[str, StoredLabel], dict[str, Label]]:
    """Two mappings by sha256: the stored labels that count under `policy`, and the labels of the table `path`, those
    that are stored already too. Nothing is stored.

    Raises DataError if an answer turns a stored label from good to reject or back: labels cannot be changed.
    """
    found = {
        answer.label.sha256: answer.label for answer in read_worksheet_answers(path, purpose, out, pictures, policy)
    }
    before = valid_labels_by_sha256(out, purpose, policy, under)
    changed = [s for s, label in found.items() if s in before and before[s].is_reject != label.is_reject]
    if changed:
        named = {sha256: name for name, sha256 in pictures.items()}
        lines = [
            f"{named.get(s, s)}: was {before[s].verdict} ({before[s].who}), is {found[s].verdict}" for s in changed
        ]
        raise DataError(f"labels of the stream {purpose} do not change:", lines, "remove those lines from the file.")
    return before, found
