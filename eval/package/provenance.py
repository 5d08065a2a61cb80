"""The provenance of a package: digests of what the pictures were made from and judged by."""

from pathlib import Path
from typing import Any

from eval.judging.verdicts import Verdict
from eval.lot.subject import Subject, made_from
from stylegate import __version__, files


def provenance(subject: Subject, accepted: list[Verdict], outcome: dict) -> dict[str, Any]:
    """Digests of everything that the pictures and their verdicts came from.

    No path, no time, no host: of a folder only its name is written, and the digest of what was in it.
    """
    return {
        "stylegate": __version__,
        "brand": outcome["brand"],
        "made_from": made_from(subject),
        "judged_by": {
            "policy": outcome["policy"],
            "thresholds": outcome["thresholds"],
            "left_out": outcome["left_out"],
            "encoder": without_path(outcome["encoder"]),
            "encoder_sha256": outcome["encoder_sha256"],
            "references": outcome["references"] | {"from": without_path(outcome["references"]["from"])},
            "promise": outcome["promise"],
            "batch": outcome["batch"],
            "verdicts_sha256": files.sha256(subject.out / "verdicts.jsonl"),
        },
        "counts": outcome["counts"] | {"exported": len(accepted)},
    }


def without_path(name: str) -> str:
    """The last part of a word that has the form of a path (files.is_path); any other word as it is."""
    return Path(name).name if files.is_path(name) else name


CARD = """# {name}

{count} pictures that were accepted by stylegate's gate. `metadata.jsonl` has prompt and traits of each; this folder
loads as a Hugging Face imagefolder. `provenance.json` names what they were made from and judged by.

Check every byte: `sha256sum -c {manifest}` here, or `stylegate verify` on this folder (it also finds added files).
"""
