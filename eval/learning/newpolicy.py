"""The policy that learns: the one before, with the decided pictures and the lines of the learnt head."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from eval.learning.gains import lowest_acceptable_score
from eval.measuring.decided import DecidedPictures
from eval.measuring.scores import LotScores
from eval.policy.file import with_keys_as_text
from eval.policy.model import CALIBRATED, Policy
from stylegate import files


class NewPolicyFile(NamedTuple):
    """Name and text of a policy file that is not written yet."""

    name: str
    text: str


def learnt_policy_file_name_and_text(
    path: Path, policy: Policy, decided: DecidedPictures, scores: LotScores
) -> NewPolicyFile:
    """Name and text of a new policy file, which is not written yet: the content of the file `path`, an entry `learnt`
    that names the decided pictures, and the thresholds of the aesthetic score that were learnt from them.

    Its checks stay. Where the aesthetic head is sure, it answers for pictures that go to review by scores that it
    reads; its two thresholds are put by cross-fitted values of the decided pictures. A policy with a calibrated check
    has the head's threshold calibrated instead, by fresh labels.
    """
    content = with_keys_as_text(files.read_yaml(path, "policy"))
    content["learnt"] = {"file": decided.decided_pictures_file_name, "sha256": decided.sha256_of_safetensors_bytes}
    if policy.calibrated_score_name:
        kept = {name: check for name, check in content["checks"].items() if check != CALIBRATED}
        content["checks"] = {**kept, "aesthetic": CALIBRATED}
    else:
        content["learnt"] |= thresholds_of_aesthetic_head(policy, decided, scores)
    stem = policy.name.partition("-learnt-")[0]
    heading = (
        f"# Written by stylegate learn, of the policy {policy.name} ({policy.sha256[:12]}...).\n"
        "# The aesthetic score is the log-odds that people accept a picture (docs/learn.md).\n"
    )
    text = heading + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return NewPolicyFile(f"{stem}-learnt-{decided.sha256_of_safetensors_bytes[:8]}.yaml", text)


def thresholds_of_aesthetic_head(policy: Policy, decided: DecidedPictures, scores: LotScores) -> dict[str, float]:
    """The thresholds of the learnt aesthetic head, by key of the policy's `learnt`.

    `accept_from` is the lowest value from which on at most alpha of the decided pictures were rejected; it is left out
    if there is none. At most the share `discard` of those that people accepted lies below `reject_below`.
    """
    pictures = {picture.sha256: picture.accepted for picture in decided.record.pictures}
    known = [
        (row["aesthetic"], pictures[row["sha256"]])
        for row in scores.rows
        if row["sha256"] in pictures and row.get("aesthetic") is not None
    ]
    values, good = [value for value, _ in known], [accepted for _, accepted in known]
    top = lowest_acceptable_score(values, good, policy.promise.alpha)
    low = float(np.quantile([value for value, accepted in known if accepted], policy.promise.discard))
    lines = {} if top is None else {"accept_from": round(top + 5e-4, 3)}
    return {**lines, "reject_below": round(min([low, *lines.values()]), 3)}
