"""Version N+1 of a collection: which items changed against version N, and whether the plan's supply still holds.

proof/changes.json says it: items that are new, were drawn again, have other traits, were burned or merged, and the
calls of ERC-4906 that tell marketplaces. It is computed from the two packages, and `stylegate verify` computes it again
where both lie in one folder.
"""

import glob
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from eval.judging.verdicts import Verdict
from eval.lot.batch import attempt_and_slot
from eval.lot.lot import Lot
from eval.package import receiver
from eval.package.layout import TABLE, is_bag, read_item_rows
from eval.package.receiver import INCLUSION, MANIFEST, MERKLE, SIGNER, TAGMANIFEST
from eval.package.signature import is_file_signed_by_key
from eval.package.verify_traits import PLAN
from stylegate import files
from stylegate.config import Config
from stylegate.errors import ConfigError, DataError
from stylegate.records import Record
from stylegate.words import counted

CHANGES = "proof/changes.json"
COMPARED = (MANIFEST, INCLUSION, MERKLE, CHANGES, PLAN, f"data/{TABLE}")  # files of one version with those of the next
NAMED = 10  # items or values that a message names


class EarlierVersion(Record):
    """The package that a version follows."""

    version: int
    """The number at the end of its folder's name."""
    tagmanifest_sha256: str
    """sha256 of its tagmanifest-sha256.txt, from which every byte of it follows."""
    merkle_root: str
    """The root over its items."""


class ItemWithNewTraits(Record):
    """An item of a collection that has other traits in this package than in the version before."""

    id: int
    traits: dict[str, list[str | None]]
    """By trait that changed: the value before and the value now; null where there was or is none."""


class ItemsMergedIntoOne(Record):
    """Items that became one."""

    into: int
    """The number of the item that lives on."""
    burned: list[int]
    """The numbers of the items that went into it."""


class ChangesSinceVersion(Record):
    """The content of proof/changes.json: how a version differs from the one before."""

    before: EarlierVersion
    new: list[int]
    """Numbers of the items that no version before has."""
    came_back: list[int] = Field(default_factory=list)
    """Items that the version before does not have and an earlier one has; left out where there are none. In packages of
    older versions of stylegate they stand in `new`."""
    drawn_again: list[int]
    """Items with another picture, and the traits of before; of those that came back, each one with another picture than
    it last had."""
    evolved: list[ItemWithNewTraits]
    """Items with other traits."""
    renamed: list[int] = Field(default_factory=list)
    """Items of which the name alone is another one; left out where there are none."""
    burned: list[int]
    """Items that were taken out for ever in this version, those that went into others included."""
    merged: list[ItemsMergedIntoOne]
    """Which of them went into which item."""
    burned_before: list[int]
    """Items that earlier versions burned. None of them comes back."""
    left_out: list[int]
    """Items of the version before that are not here and were not burned: they may come back."""
    left_out_before: list[int] = Field(default_factory=list)
    """Items of earlier versions that the version before does not have either; left out where there are none."""
    left_out_pictures: dict[int, str] = Field(default_factory=dict)
    """Of the items in both lists the sha256 of the picture that each last had, by number; left out where there are
    none, and in packages of older versions of stylegate."""
    erc4906: list[list[int]]
    """The fewest ranges [first, last] of items whose metadata or picture changed, or that came back after a version
    without them, over no item that is as it was: the arguments of BatchMetadataUpdate, or of MetadataUpdate where both
    are equal."""

    def as_older_versions_wrote_it(self) -> "ChangesSinceVersion":
        """The same as versions of stylegate wrote it that counted items that came back as new."""
        return self.model_copy(
            update={
                "new": sorted([*self.new, *self.came_back]),
                "drawn_again": [item for item in self.drawn_again if item not in self.came_back],
                "came_back": [],
                "left_out_pictures": {},
            }
        )


@dataclass(frozen=True, slots=True)
class ItemsToBurnAndMergesOfItems:
    """The items that the keys burn= and merge= ask to remove or to merge."""

    burned: frozenset[int] = frozenset()
    merged: dict[int, tuple[int, ...]] = field(default_factory=dict)  # the item that lives on -> those that go into it

    def item_numbers_burned_or_merged(self) -> set[int]:
        """The numbers of all items that go: those that are burned, and those that are merged into another one."""
        return {*self.burned, *(number for numbers in self.merged.values() for number in numbers)}


NOTHING = ItemsToBurnAndMergesOfItems()
Traits = Mapping[int, Mapping[str, str]]  # trait -> value, by the number of an item


def burn_and_merge_request_from_config(config: Config) -> ItemsToBurnAndMergesOfItems:
    """The items that burn= (3,7) and merge= (3+7: 7 goes into 3) name. Raises ConfigError with every odd word."""
    burns, merges = (list(filter(None, (text or "").split(","))) for text in (config.burn, config.merge))
    odd = [f"burn: {word}" for word in burns if not re.fullmatch("[0-9]{1,9}", word)]
    odd += [f"merge: {word}" for word in merges if not re.fullmatch("[0-9]{1,9}([+][0-9]{1,9})+", word)]
    if odd:
        raise ConfigError("no numbers of items:", odd, "burn=3,7 takes two out; merge=3+7,10+11 lets 7 and 11 go.")
    groups = [[int(number) for number in word.split("+")] for word in merges]
    found = ItemsToBurnAndMergesOfItems(frozenset(map(int, burns)), {group[0]: tuple(group[1:]) for group in groups})
    named = Counter([*found.burned, *(number for group in groups for number in group)])
    if twice := [str(number) for number, count in named.items() if count > 1]:
        raise ConfigError(f"named twice in burn= and merge=: {', '.join(twice)}")
    return found


def verdicts_without_burned(
    lot: Lot, accepted: Sequence[Verdict], newest: Path | None, told: ItemsToBurnAndMergesOfItems
) -> list[Verdict]:
    """The verdicts of items that are not burned, now or in an earlier version.

    Raises ConfigError where burn= or merge= names an item that the version before does not have.
    """
    gone = told.item_numbers_burned_or_merged()
    if gone and (lot.record is None or newest is None or not is_bag(newest)):
        raise ConfigError(
            "burn= and merge= are for a new version of a planned batch that was exported before",
            next_step="of a folder take the picture out; before the first export leave the slot out of the plan.",
        )
    before = ids_of_exported_unburned_items(newest) if newest and gone else set()
    burned = ids_of_items_burned_so_far(newest) if lot.record else set()
    if odd := sorted((gone - burned | set(told.merged)) - before):
        raise ConfigError(f"{newest.name if newest else ''} has no item {', '.join(map(str, odd))}")
    gone |= burned
    return [verdict for verdict in accepted if not lot.record or attempt_and_slot(verdict.file)[1] not in gone]


def ids_of_exported_unburned_items(package: Path) -> set[int]:
    """The numbers of the items that a package has, and of those that it or a version before left out."""
    return {*picture_and_metadata_digests_by_item(package), *ids_of_left_out_items(package)}


def ids_of_items_burned_so_far(package: Path | None) -> set[int]:
    """The items that a package and those before it burned. Raises DataError if somebody changed the list since."""
    if package is None or not is_bag(package) or not package_had_file_at_export(package, CHANGES):
        return set()
    found = ChangesSinceVersion.read_json_file(package / CHANGES, "the changes")
    return {*found.burned, *found.burned_before}


def ids_of_left_out_items(package: Path) -> set[int]:
    """The items that versions before a package had and it has not, and that were not burned: they may come back.

    The package's own list of changes says it; no earlier version is needed.

    Raises DataError if somebody changed the list since.
    """
    if not package_had_file_at_export(package, CHANGES):
        return set()
    found = ChangesSinceVersion.read_json_file(package / CHANGES, "the changes")
    return {*found.left_out, *found.left_out_before}


def pictures_of_left_out_items(package: Path) -> dict[int, str]:
    """The sha256 of the picture that each of `ids_of_left_out_items` last had, by number, as far as the package's list
    of changes says it. Raises DataError if somebody changed the list since.
    """
    if not package_had_file_at_export(package, CHANGES):
        return {}
    return ChangesSinceVersion.read_json_file(package / CHANGES, "the changes").left_out_pictures


def judged_digests_of_newest_pictures(versions: Sequence[Path]) -> set[str]:
    """For each item that these packages have, the oldest first, the sha256 of the file that was judged for the picture
    that it had last.
    """
    found: dict[int, str] = {}
    for package in filter(is_bag, versions):
        rows = files.read_jsonl(package / INCLUSION, "id", "image_sha256")
        found |= {row["id"]: row.get("judged_sha256", row["image_sha256"]) for row in rows}
    return set(found.values())


def package_had_file_at_export(package: Path, name: str) -> bool:
    """Whether a package was exported with the file `name`, one of COMPARED: whether it is there. Raises DataError if
    somebody changed, added or removed one of those files since.
    """
    require_package_unchanged_since_export(package)
    return (package / name).exists()


def require_package_unchanged_since_export(package: Path) -> None:
    """Raises DataError where a file that later versions are compared with is not as it was exported."""
    if changed := files_changed_since_export(package):
        raise DataError(
            f"{', '.join(changed)} of {package.name} is not as it was exported: nobody knows what was there",
            next_step="put back the package as it was, from a copy.",
        )


def files_changed_since_export(package: Path) -> list[str]:
    """Names of files that later versions are compared with (COMPARED) and that are not as the manifests list them, and
    that of the signature of a signed package if it does not hold.
    """
    listed = receiver.read_manifest(package, MANIFEST, []) | receiver.read_manifest(package, TAGMANIFEST, [])
    digests = {name: files.sha256_of_file(package / name) if (package / name).is_file() else None for name in COMPARED}
    changed = [name for name, sha256 in digests.items() if sha256 != listed.get(name)]
    signer, signature = package / SIGNER, package / f"{TAGMANIFEST}.sig"
    unsigned = signer.exists() and not is_file_signed_by_key(signer, package / TAGMANIFEST, signature)
    return changed + [signature.name] * unsigned


def picture_and_metadata_digests_by_item(package: Path) -> dict[int, tuple[str, str]]:
    """(sha256 of the picture, sha256 of the metadata in canonical JSON) of each item, by its number."""
    rows = files.read_jsonl(package / INCLUSION, "id", "image_sha256", "metadata_sha256")
    return {row["id"]: (row["image_sha256"], row["metadata_sha256"]) for row in rows}


def traits_of_package(package: Path) -> dict[int, dict[str, str]]:
    """The traits (trait -> value) of each item that a package states, by its number."""
    return {row.id: row.traits for row in read_item_rows(package)}


def planned_traits_of_package(package: Path) -> dict[int, dict[str, str]]:
    """The traits of each item by the plan in the package, by its number; where it has none, those that are stated."""
    planned = traits_of_plan(package)
    return {item: planned.get(item, stated) for item, stated in traits_of_package(package).items()}


def changes_between(before: Path, after: Path, told: ItemsToBurnAndMergesOfItems) -> ChangesSinceVersion:
    """The content of changes.json for the package `after`, which follows `before`: items that are new, burned, drawn
    again, merged, or have other traits. `told` is what burn= and merge= ask for.
    """
    old, new = picture_and_metadata_digests_by_item(before), picture_and_metadata_digests_by_item(after)
    old_traits, new_traits = traits_of_package(before), traits_of_package(after)
    both = sorted(old.keys() & new.keys())
    changed = [item for item in both if old[item] != new[item]]
    evolved = [item for item in changed if old_traits[item] != new_traits[item]]
    renamed = [item for item in changed if item not in evolved and old[item][0] == new[item][0]]
    burned, away = ids_of_items_burned_so_far(before), ids_of_left_out_items(before)
    back, last_had = away & new.keys(), pictures_of_left_out_items(before)
    redrawn_back = [item for item in back if item in last_had and new[item][0] != last_had[item]]
    gone = told.item_numbers_burned_or_merged() - burned
    left_out = sorted(old.keys() - new.keys() - gone)
    merged = {into: sorted({*items} - burned) for into, items in sorted(told.merged.items())}
    return ChangesSinceVersion(
        before=version_number_and_digests_of_package(before),
        new=sorted(new.keys() - old.keys() - away),
        came_back=sorted(back),
        drawn_again=sorted([*redrawn_back, *(i for i in changed if i not in evolved and i not in renamed)]),
        evolved=[
            ItemWithNewTraits(id=i, traits=changed_traits_before_and_after(old_traits[i], new_traits[i]))
            for i in evolved
        ],
        renamed=renamed,
        burned=sorted(gone),
        merged=[ItemsMergedIntoOne(into=into, burned=items) for into, items in merged.items() if items],
        burned_before=sorted(burned),
        left_out=left_out,
        left_out_before=sorted(away - back - gone),
        left_out_pictures={i: sha256 for i, sha256 in last_had.items() if i not in back | gone}
        | {i: old[i][0] for i in left_out},
        erc4906=fewest_ranges_covering_changed_items({*changed, *back}, {*both, *back}),
    )


def numbered_versions(collection: Path) -> list[tuple[Path, int]]:
    """The packages of a collection and their numbers, the oldest first."""
    found = [
        (path, int(tail))
        for path in files.sorted_paths_matching_pattern(collection.parent, f"{glob.escape(collection.name)}-v*")
        if re.fullmatch("[1-9][0-9]*", tail := path.name.removeprefix(f"{collection.name}-v"))
    ]
    return sorted(found, key=lambda version: version[1])


def version_number_and_digests_of_package(package: Path) -> EarlierVersion:
    """The entry of changes.json by which the next version names this package: number, digest and Merkle root."""
    return EarlierVersion(
        version=int(package.name.rpartition("-v")[2]),
        tagmanifest_sha256=files.sha256_of_file(package / TAGMANIFEST),
        merkle_root=files.read_json(package / MERKLE, "the tree", "root")["root"],
    )


def changed_traits_before_and_after(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str | None]]:
    """The traits of an item that changed: by name the value before and the value after, None where it has none."""
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


def fewest_ranges_covering_changed_items(changed: Collection[int], items: Iterable[int]) -> list[list[int]]:
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


def traits_of_plan(package: Path) -> dict[int, dict[str, str]]:
    """The traits of each slot of the plan that a package opens, by its number; none where it opens none."""
    rows = (package / PLAN).read_bytes().splitlines() if (package / PLAN).is_file() else []
    return {row["slot"]: row["traits"] for row in map(json.loads, rows)}


def planned_traits_of_unburned_items(versions: Sequence[Path], package: Path, burned: Collection[int]) -> Traits:
    """The planned traits of each item that exists and is not `burned`, by its number: of the items of `package` as its
    plan has them, of those that it leaves out as the last of `versions` had them. What a person corrected is no supply.
    """
    found: dict[int, dict[str, str]] = {}
    for version in filter(is_bag, versions):
        found |= planned_traits_of_package(version)
    living = {item: traits for item, traits in found.items() if item not in burned}
    return living | planned_traits_of_package(package)


def version_that_declares_supply(versions: Sequence[Path]) -> Path | None:
    """The first of these packages whose plan declares a supply; None where none does.

    Raises DataError if a plan was changed since.
    """
    declaring = (p for p in versions if is_bag(p) and package_had_file_at_export(p, PLAN))
    return next(declaring, None)


def problems_beyond_declared_supply(versions: Sequence[Path], traits: Traits) -> list[str]:
    """Sentences on where `traits`, of items or of the slots of a plan, go beyond the supply that the first version's
    plan declared: more items, or more of a value; none where it declared nothing. What that version had of a value
    beyond its plan, since a person corrected it, is there already.

    `versions` are the packages before, the oldest first. Raises DataError if the plan there was changed since.
    """
    first = version_that_declares_supply(versions)
    if first is None:
        return []
    planned = list(traits_of_plan(first).values())
    had = Counter(pair for item in traits_of_package(first).values() for pair in item.items())
    declared = Counter(pair for slot in planned for pair in slot.items()) | had
    here = Counter(pair for item in traits.values() for pair in item.items())
    problems = [f"{len(traits)} items, {len(planned)} declared"] if len(traits) > len(planned) else []
    return problems + [
        f"{trait}: {value}: {counted(count, 'item')}, {declared[trait, value]} declared"
        for (trait, value), count in sorted(here.items())
        if count > declared[trait, value]
    ]


def write_changes(package: Path, newest: Path, versions: Sequence[Path], told: ItemsToBurnAndMergesOfItems) -> None:
    """Write changes.json into a package that follows `newest`. Raises DataError where it goes beyond the supply."""
    for version in filter(is_bag, versions):
        require_package_unchanged_since_export(version)
    changes = changes_between(newest, package, told)
    items = planned_traits_of_unburned_items(versions, package, {*changes.burned, *changes.burned_before})
    if problems := problems_beyond_declared_supply(versions, items) or problems_beyond_declared_supply(
        versions, traits_of_plan(package)
    ):
        raise DataError(
            f"more than the plan of this collection's first version declared ({files.display_path(newest)}):",
            problems[:NAMED] + ([f"and {len(problems) - NAMED} more"] if len(problems) > NAMED else []),
            "plan within the supply, burn items (burn=NUMBERS), or give another collection another name=.",
        )
    if gone := sorted({group.into for group in changes.merged} - picture_and_metadata_digests_by_item(package).keys()):
        raise DataError(
            f"merge=: {', '.join(map(str, gone))} would live on, and is not among the accepted pictures",
            next_step="export again when it is; or burn the others (burn=NUMBERS).",
        )
    changes.write_json_file(package / CHANGES)
