"""Version N+1 of a collection: which items changed against version N, and whether the plan's supply still holds.

proof/changes.json says it: items that are new, were drawn again, have other traits, were burned or merged, and the
calls of ERC-4906 that tell marketplaces. It is computed from the two packages, and `stylegate verify` computes it again
where both lie in one folder.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.judging.verdicts import Verdict
from eval.lot.batch import attempt_and_slot
from eval.lot.lot import Lot
from eval.package import receiver
from eval.package.layout import TABLE, is_bag
from eval.package.receiver import INCLUSION, MERKLE, SIGNER, TAGMANIFEST
from eval.package.signature import is_signed_file
from eval.package.verify_traits import PLAN
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError
from stylegate.records import Record

CHANGES = "proof/changes.json"
NAMED = 10  # items or values that a message names


class VersionBefore(Record):
    """The package that a version follows."""

    version: int
    """The number at the end of its folder's name."""
    tagmanifest_sha256: str
    """sha256 of its tagmanifest-sha256.txt, from which every byte of it follows."""
    merkle_root: str
    """The root over its items."""


class EvolvedItem(Record):
    """An item that has other traits than before."""

    id: int
    traits: dict[str, list[str | None]]
    """By trait that changed: the value before and the value now; null where there was or is none."""


class MergedItems(Record):
    """Items that became one."""

    into: int
    """The number of the item that lives on."""
    burned: list[int]
    """The numbers of the items that went into it."""


class Changes(Record):
    """The content of proof/changes.json: how a version differs from the one before."""

    before: VersionBefore
    new: list[int]
    """Numbers of the items that the version before does not have."""
    drawn_again: list[int]
    """Items with another picture, and the traits of before."""
    evolved: list[EvolvedItem]
    """Items with other traits."""
    burned: list[int]
    """Items that were taken out for ever in this version, those that went into others included."""
    merged: list[MergedItems]
    """Which of them went into which item."""
    burned_before: list[int]
    """Items that earlier versions burned. None of them comes back."""
    left_out: list[int]
    """Items of the version before that are not here and were not burned: they may come back."""
    erc4906: list[list[int]]
    """The fewest ranges [first, last] of items whose metadata or picture changed, over no item that did not: the
    arguments of BatchMetadataUpdate, or of MetadataUpdate where both are equal."""


@dataclass(frozen=True, slots=True)
class Burning:
    """The items that the keys burn= and merge= ask to remove or to merge."""

    burned: frozenset[int] = frozenset()
    merged: dict[int, tuple[int, ...]] = field(default_factory=dict)  # the item that lives on -> those that go into it

    def all(self) -> set[int]:
        """The numbers of all items that are to go."""
        return {*self.burned, *(number for numbers in self.merged.values() for number in numbers)}


NOTHING = Burning()


def requested_burning(config: Config) -> Burning:
    """The items that burn= (3,7) and merge= (3+7: 7 goes into 3) name. Raises ConfigError with every odd word."""
    burns, merges = (list(filter(None, (text or "").split(","))) for text in (config.burn, config.merge))
    odd = [f"burn: {word}" for word in burns if not re.fullmatch("[0-9]{1,9}", word)]
    odd += [f"merge: {word}" for word in merges if not re.fullmatch("[0-9]{1,9}([+][0-9]{1,9})+", word)]
    if odd:
        raise ConfigError("no numbers of items:", odd, "burn=3,7 takes two out; merge=3+7,10+11 lets 7 and 11 go.")
    groups = [[int(number) for number in word.split("+")] for word in merges]
    found = Burning(frozenset(map(int, burns)), {group[0]: tuple(group[1:]) for group in groups})
    named = Counter([*found.burned, *(number for group in groups for number in group)])
    if twice := [str(number) for number, count in named.items() if count > 1]:
        raise ConfigError(f"named twice in burn= and merge=: {', '.join(twice)}")
    return found


def without_burned(lot: Lot, accepted: Sequence[Verdict], newest: Path | None, told: Burning) -> list[Verdict]:
    """The verdicts of items that are not burned, now or in an earlier version.

    Raises ConfigError where burn= or merge= names an item that the version before does not have.
    """
    gone = told.all()
    if gone and (lot.record is None or newest is None or not is_bag(newest)):
        raise ConfigError(
            "burn= and merge= are for a new version of a planned batch that was exported before",
            next_step="of a folder take the picture out; before the first export leave the slot out of the plan.",
        )
    before = set(items_of_package(newest)) if newest and gone else set()
    burned = burned_so_far(newest) if lot.record else set()
    if odd := sorted((gone - burned | set(told.merged)) - before):
        raise ConfigError(f"{newest.name if newest else ''} has no item {', '.join(map(str, odd))}")
    gone |= burned
    return [verdict for verdict in accepted if not lot.record or attempt_and_slot(verdict.file)[1] not in gone]


def burned_so_far(package: Path | None) -> set[int]:
    """The items that a package and those before it burned. Raises DataError if somebody changed the list since."""
    if package is None or not is_bag(package) or not was_exported_with(package, CHANGES, "what was burned"):
        return set()
    found = Changes.read(package / CHANGES, "the changes")
    return {*found.burned, *found.burned_before}


def was_exported_with(package: Path, name: str, what: str) -> bool:
    """Whether a package has the file `name`, which says `what`. Raises DataError if it is not as it was exported."""
    listed = receiver.read_manifest(package, TAGMANIFEST, []).get(name)
    if listed is None and not (package / name).exists():
        return False
    signer, signed = package / SIGNER, package / f"{TAGMANIFEST}.sig"
    is_whole = (package / name).is_file() and files.sha256(package / name) == listed
    if not is_whole or (signer.exists() and not is_signed_file(signer, package / TAGMANIFEST, signed)):
        raise DataError(
            f"{name} of {package.name} is not as it was exported: nobody knows {what}",
            next_step="put back the package as it was, from a copy.",
        )
    return True


def items_of_package(package: Path) -> dict[int, tuple[str, str]]:
    """(sha256 of the picture, sha256 of the metadata in canonical JSON) of each item, by its number."""
    rows = files.read_jsonl(package / INCLUSION, "id", "image_sha256", "metadata_sha256")
    return {row["id"]: (row["image_sha256"], row["metadata_sha256"]) for row in rows}


def traits_of_package(package: Path) -> dict[int, dict[str, str]]:
    """The traits of each item, by its number."""
    rows = files.read_parquet(package / "data" / TABLE).to_pylist()
    return {
        row["id"]: {trait: value for trait, value in (row.get("traits") or {}).items() if value is not None}
        for row in rows
    }


def changes_between(before: Path, after: Path, told: Burning) -> Changes:
    """The differences of two versions of a collection: items added, removed, drawn again, evolved, merged."""
    old, new = items_of_package(before), items_of_package(after)
    old_traits, new_traits = traits_of_package(before), traits_of_package(after)
    both = sorted(old.keys() & new.keys())
    changed = [item for item in both if old[item] != new[item]]
    evolved = [item for item in changed if old_traits[item] != new_traits[item]]
    burned = burned_so_far(before)
    gone = told.all() - burned
    merged = {into: sorted({*items} - burned) for into, items in sorted(told.merged.items())}
    return Changes(
        before=version_of(before),
        new=sorted(new.keys() - old.keys()),
        drawn_again=[item for item in changed if item not in evolved],
        evolved=[EvolvedItem(id=i, traits=changed_traits(old_traits[i], new_traits[i])) for i in evolved],
        burned=sorted(gone),
        merged=[MergedItems(into=into, burned=items) for into, items in merged.items() if items],
        burned_before=sorted(burned),
        left_out=sorted(old.keys() - new.keys() - gone),
        erc4906=fewest_ranges(changed, both),
    )


def version_of(package: Path) -> VersionBefore:
    """A package as the next version names it."""
    return VersionBefore(
        version=int(package.name.rpartition("-v")[2]),
        tagmanifest_sha256=files.sha256(package / TAGMANIFEST),
        merkle_root=files.read_json(package / MERKLE, "the tree", "root")["root"],
    )


def changed_traits(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str | None]]:
    """The traits of an item that changed: by name the value before and the value after, None where it has none."""
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


def fewest_ranges(changed: Collection[int], items: Iterable[int]) -> list[list[int]]:
    """The fewest ranges that hold all `changed` and no other of `items`; numbers that no item has may lie inside."""
    found: list[list[int]] = []
    chosen, inside = set(changed), False
    for item in sorted(items):
        if item in chosen and inside:
            found[-1][1] = item
        elif item in chosen:
            found.append([item, item])
        inside = item in chosen
    return found


def supply_problems(versions: Sequence[Path], traits: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Where items go beyond the supply that the first version's plan declared; none where it declared nothing.

    `versions` are the packages before, the oldest first. Raises DataError if the plan there was changed since.
    """
    declaring = (p for p in versions if is_bag(p) and was_exported_with(p, PLAN, "what was declared"))
    first = next(declaring, None)
    if first is None:
        return []
    planned = [row["traits"] for row in map(json.loads, (first / PLAN).read_bytes().splitlines())]
    declared = Counter(pair for slot in planned for pair in slot.items())
    here = Counter(pair for item in traits.values() for pair in item.items())
    problems = [f"{len(traits)} items, {len(planned)} declared"] if len(traits) > len(planned) else []
    return problems + [
        f"{trait}: {value}: {count} items, {declared[trait, value]} declared"
        for (trait, value), count in sorted(here.items())
        if count > declared[trait, value]
    ]


def write_changes(package: Path, newest: Path, versions: Sequence[Path], told: Burning) -> None:
    """Write changes.json into a package that follows `newest`. Raises DataError where it goes beyond the supply."""
    if problems := supply_problems(versions, traits_of_package(package)):
        raise DataError(
            f"more than the plan of this collection's first version declared ({files.display_path(newest)}):",
            problems[:NAMED] + ([f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []),
            "plan within the supply, burn items (burn=NUMBERS), or give another collection another name=.",
        )
    changes_between(newest, package, told).write(package / CHANGES)


def check_changes(package: Path) -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on the changes that a package states."""
    if not (package / CHANGES).is_file():
        return [], [], []
    try:
        found, items = Changes.read(package / CHANGES, "the changes"), items_of_package(package)
    except DataError as error:
        return [], [], error.problems or [str(error)]
    back = sorted({*found.burned, *found.burned_before} & items.keys())
    wrong = [f"{CHANGES}: item {item} was burned, and is here" for item in back]
    collection = package.name.rpartition("-v")[0]
    before = package.with_name(f"{collection}-v{found.before.version}")
    if not (before / TAGMANIFEST).is_file() or files.sha256(before / TAGMANIFEST) != found.before.tagmanifest_sha256:
        return [], [f"what changed since version {found.before.version}: that package is not beside this one"], wrong
    merged = {group.into: tuple(group.burned) for group in found.merged}
    alone = set(found.burned) - {item for group in merged.values() for item in group}
    if changes_between(before, package, Burning(frozenset(alone), merged)) != found:
        wrong.append(f"{CHANGES}: it does not say what is other than in {before.name}")
    return [f"since {before.name} {changes_in_words(found)}"], [], wrong


def changes_in_words(found: Changes) -> str:
    """A sentence on how many items changed in which way."""
    parts = (
        (len(found.new), "new"),
        (len(found.drawn_again), "drawn again"),
        (len(found.evolved), "with other traits"),
        (len(found.burned), "burned"),
        (len(found.left_out), "left out"),
    )
    return ", ".join(f"{count} {what}" for count, what in parts if count) or "no item changed"
