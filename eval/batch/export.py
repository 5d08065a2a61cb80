"""Package what was accepted: pictures, metadata, checksums, provenance. Whole or not at all.

    stylegate export brand=neon traits=collectible       data/exports/neon-v1/
    stylegate export images=DIR out=DIR2                 a foreign folder's accepted pictures

Reads verdicts.jsonl and gate.json; hashes every picture again, and one that changed since its verdict stays here
(exit 10). The same content is not exported twice: N grows only when something differs.
"""

import shutil
from pathlib import Path
from typing import Any

from eval.subject import Subject, subject_of
from stylegate import __version__, files
from stylegate.config import Config, run_name
from stylegate.errors import DataError

MANIFEST = "manifest-sha256.txt"


def export(config: Config) -> int:
    """Write the next version of the package, or name the one that holds the same. Returns 0, or 10 (see above)."""
    subject = subject_of(config)
    target, changed = package(config, subject)
    for name in changed:
        print(f"note: {name} is not the picture that was judged; it is left out. Run the gate again.")
    print(f"export: {files.shown(target)}")
    return 10 if changed else 0


def package(config: Config, subject: Subject) -> tuple[Path, list[str]]:
    """The package's folder, and the accepted pictures that changed since (never exported)."""
    outcome = files.read_json(subject.out / "gate.json", "the gate's record (stylegate gate first)")
    if outcome["observe"]:
        raise DataError("the verdicts were made with observe=true", next_step="stylegate gate without it, then export.")
    accepted, changed = accepted_pictures(subject)
    if not accepted:
        raise DataError(f"nothing to export: no picture of {files.shown(subject.out)} was accepted")
    collection = files.EXPORTS / (config.name or (run_name(config) if config.brand else subject.out.name))
    newest, number = newest_version(collection)
    partial_name = collection.with_name(f"{collection.name}-v{number + 1}")
    target = Path(config.out).expanduser().resolve() if config.out and subject.slots is not None else partial_name
    if target.exists():
        raise DataError(f"{files.shown(target)} exists already", next_step="give another out=.")
    same: list[Path] = []

    def build(partial: Path) -> None:
        fill(partial, subject, accepted, outcome)
        if newest and (newest / MANIFEST).read_bytes() == (partial / MANIFEST).read_bytes():
            same.append(newest)

    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    files.whole_folder(draft, build)
    if same:
        shutil.rmtree(draft)
        return same[0], changed
    draft.rename(target)
    return target, changed


def accepted_pictures(subject: Subject) -> tuple[list[dict], list[str]]:
    """Verdicts of what goes out, and the names of those whose file is not the one that was judged."""
    paths = dict(subject.named)
    accepted, changed = [], []
    for verdict in files.read_jsonl(subject.out / "verdicts.jsonl"):
        if verdict["verdict"] == "accept":
            path = paths.get(verdict["file"])
            whole = path is not None and path.is_file() and files.sha256(path) == verdict["sha256"]
            (accepted if whole else changed).append(verdict)
    return accepted, [verdict["file"] for verdict in changed]


def newest_version(collection: Path) -> tuple[Path | None, int]:
    """The newest package of a collection and its number; (None, 0) if there is none."""
    numbers = [
        int(tail)
        for path in collection.parent.glob(f"{collection.name}-v*")
        if (tail := path.name.removeprefix(f"{collection.name}-v")).isdigit()
    ]
    newest = max(numbers, default=0)
    return (collection.with_name(f"{collection.name}-v{newest}") if newest else None), newest


def fill(partial: Path, subject: Subject, accepted: list[dict], outcome: dict) -> None:
    """images/, metadata.jsonl (a Hugging Face imagefolder), provenance.json, README.md, the manifest over all of it."""
    paths, rows = dict(subject.named), []
    for verdict in accepted:
        name = verdict["file"].replace("/", "-")
        content = paths[verdict["file"]].read_bytes()
        files.write(partial / "images" / name, content)
        if files.sha256(partial / "images" / name) != verdict["sha256"]:
            raise DataError(
                f"{verdict['file']} changed while it was exported", next_step="run the gate and the export again."
            )
        slot = (subject.slots or {}).get(verdict["file"])
        drawn = {"text": slot.prompt, "traits": slot.traits} if slot else {}
        rows.append({"file_name": f"images/{name}", "sha256": verdict["sha256"]} | drawn)
    files.write_jsonl(partial / "metadata.jsonl", rows)
    files.write_json(partial / "provenance.json", provenance(subject, accepted, outcome))
    files.write(partial / "README.md", CARD.format(count=len(rows), name=subject.out.name, manifest=MANIFEST))
    lines = [
        f"{files.sha256(p)}  {p.relative_to(partial).as_posix()}" for p in sorted(partial.rglob("*")) if p.is_file()
    ]
    files.write(partial / MANIFEST, "\n".join(lines) + "\n")


def provenance(subject: Subject, accepted: list[dict], outcome: dict) -> dict[str, Any]:
    """Digests of everything that the pictures and their verdicts came from. No path, no time, no host."""
    facts = subject.record.get("facts", {})
    plan = subject.out / "plan.parquet"
    return {
        "stylegate": __version__,
        "made_from": {
            "base_sha256": facts.get("base"),
            "lora_sha256": facts.get("lora"),
            "data_sha256": facts.get("brand"),
            "plan_sha256": files.sha256(plan) if plan.exists() else None,
            "generate": facts.get("generate"),
            "precision": subject.record.get("precision"),
        },
        "judged_by": {
            "policy": outcome["policy"],
            "thresholds": outcome["thresholds"],
            "left_out": outcome["left_out"],
            "encoder": outcome["encoder"],
            "encoder_sha256": outcome["encoder_sha256"],
            "references": outcome["references"],
            "verdicts_sha256": files.sha256(subject.out / "verdicts.jsonl"),
        },
        "counts": outcome["counts"] | {"exported": len(accepted)},
    }


CARD = """# {name}

{count} pictures that were accepted by stylegate's gate. `metadata.jsonl` has prompt and traits of each; this folder
loads as a Hugging Face imagefolder. `provenance.json` names what they were made from and judged by.

Check every byte: `sha256sum -c {manifest}` here, or `stylegate verify` on this folder (it also finds added files).
"""
