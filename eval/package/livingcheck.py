"""Does the changes file of a package hold? It is compared with the earlier package's own files."""

from collections.abc import Collection
from pathlib import Path

from eval.package.living import (
    CHANGES,
    ChangesSinceVersion,
    ItemsToBurnAndMergesOfItems,
    changes_between,
    files_changed_since_export,
    ids_of_exported_unburned_items,
    picture_and_metadata_digests_by_item,
    planned_traits_of_unburned_items,
    problems_beyond_declared_supply,
    require_package_unchanged_since_export,
    traits_of_plan,
    version_that_declares_supply,
)
from eval.package.receiver import TAGMANIFEST
from stylegate import files
from stylegate.errors import DataError


def verify_changes_file(package: Path) -> tuple[list[str], list[str], list[str]]:
    """Compare changes.json of a package with the package itself: sentences on what is proven, not proven, and wrong.

    All three lists are empty if the package has no changes.json.
    """
    if not (package / CHANGES).is_file():
        return [], [], []
    try:
        found, items = (
            ChangesSinceVersion.read_json_file(package / CHANGES, "the changes"),
            picture_and_metadata_digests_by_item(package),
        )
    except DataError as error:
        return [], [], error.problems or [str(error)]
    back = sorted({*found.burned, *found.burned_before} & items.keys())
    wrong = [f"{CHANGES}: item {item} was burned, and is here" for item in back]
    collection = package.name.rpartition("-v")[0]
    before = package.with_name(f"{collection}-v{found.before.version}")
    if (
        not (before / TAGMANIFEST).is_file()
        or files.sha256_of_file(before / TAGMANIFEST) != found.before.tagmanifest_sha256
    ):
        return [], [f"what changed since version {found.before.version}: that package is not beside this one"], wrong
    if changed := files_changed_since_export(before):
        not_as_it_was = f"{', '.join(changed)} of {before.name} is not as it was exported"
        return [], [f"what changed since version {found.before.version}: {not_as_it_was}"], wrong
    merged = {group.into: tuple(group.burned) for group in found.merged}
    alone = set(found.burned) - {item for group in merged.values() for item in group}
    never = set(found.burned) - ids_of_exported_unburned_items(before) or merged.keys() - items.keys()
    true = changes_between(before, package, ItemsToBurnAndMergesOfItems(frozenset(alone), merged))
    if never or found not in (true, true.as_older_versions_wrote_it()):
        wrong.append(f"{CHANGES}: it does not say what is other than in {before.name}")
    kept, unknown, beyond = check_items_within_declared_supply(package, {*found.burned, *found.burned_before})
    return [f"since {before.name} {changes_in_words(found)}", *kept], unknown, wrong + beyond


def check_items_within_declared_supply(
    package: Path, burned: Collection[int]
) -> tuple[list[str], list[str], list[str]]:
    """(proven, not proven, wrong): sentences on whether a later version keeps to what the first one declared.

    The versions before must lie beside it, each of them the one that the next one names.
    """
    versions: list[Path] = []
    here = package
    try:
        while (here / CHANGES).is_file():
            named = ChangesSinceVersion.read_json_file(here / CHANGES, "the changes").before
            here = here.with_name(f"{package.name.rpartition('-v')[0]}-v{named.version}")
            if (
                not (here / TAGMANIFEST).is_file()
                or files.sha256_of_file(here / TAGMANIFEST) != named.tagmanifest_sha256
            ):
                return [], [f"that no more was made than was declared at first: {here.name} is not beside this one"], []
            require_package_unchanged_since_export(here)
            versions.insert(0, here)
        first = version_that_declares_supply(versions)
        problems = problems_beyond_declared_supply(
            versions, planned_traits_of_unburned_items(versions, package, burned)
        )
        problems = problems or problems_beyond_declared_supply(versions, traits_of_plan(package))
    except DataError as error:
        return [], [f"that no more was made than was declared at first: {error}"], []
    if first is None:
        return [], [], []
    kept = [f"no more items, and no more of a value, than {first.name} declared or had"]
    return [] if problems else kept, [], [f"more than {first.name} declared: {line}" for line in problems]


def changes_in_words(found: ChangesSinceVersion) -> str:
    """A sentence on how many items changed in which way."""
    parts = (
        (len(found.new), "new"),
        (len(found.came_back), "back again"),
        (len(found.drawn_again), "drawn again"),
        (len(found.evolved), "with other traits"),
        (len(found.renamed), "with another name"),
        (len(found.burned), "burned"),
        (len(found.left_out), "left out"),
    )
    return ", ".join(f"{count} {what}" for count, what in parts if count) or "no item changed"
