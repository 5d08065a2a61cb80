"""What a lot is compared with under a policy: references, and the decided pictures that the policy names."""

from dataclasses import replace
from pathlib import Path

from eval.lot.comparison import ComparisonPictures, DecidedPicturesFile, comparison_pictures_without_decided_ones
from eval.lot.lot import Lot
from eval.policy import file as policyfile
from eval.policy.model import Policy
from stylegate.config import Config
from stylegate.errors import DataError


def comparison_pictures_with_decided_ones(config: Config, lot: Lot, policy: Policy | None = None) -> ComparisonPictures:
    """What the lot is compared with, the decided pictures of `policy` among it; every part of it may be empty.

    `policy` is by default the one that the config names; the other parts are those of
    `comparison_pictures_without_decided_ones`. Raises DataError for what cannot be read.
    """
    policy = policy or policyfile.read_policy(config.policy)
    compared = comparison_pictures_without_decided_ones(config, lot)
    if policy.learnt is None:
        return compared
    return replace(compared, decided=decided_pictures_file_of_policy(policy, policyfile.policy_path(config.policy)))


def decided_pictures_file_of_policy(policy: Policy, path: Path) -> DecidedPicturesFile:
    """The file of decided pictures that the policy in the file `path` names. Raises DataError if there is none."""
    assert policy.learnt is not None
    named = path.parent / Path(policy.learnt.file).expanduser()
    if not named.is_file():
        raise DataError(
            f"policy {policy.name}: learnt.file {policy.learnt.file} is not there",
            next_step="keep it beside the policy, as stylegate learn wrote both.",
        )
    return DecidedPicturesFile(named, policy.learnt.sha256)
