"""What a lot is compared with under a policy: references, and the decided pictures that the policy names."""

from dataclasses import replace
from pathlib import Path

from eval.lot.comparison import Comparison, DecidedFile, comparison_without_decisions
from eval.lot.lot import Lot
from eval.policy import file as policyfile
from eval.policy.model import Policy
from stylegate.config import Config
from stylegate.errors import DataError


def comparison_with_decisions(config: Config, lot: Lot, policy: Policy | None = None) -> Comparison:
    """What the lot is compared with, the decided pictures of `policy` among it; every part of it may be empty.

    `policy` is by default the one that the config names; the other parts are those of `comparison_without_decisions`.
    Raises DataError for what cannot be read.
    """
    policy = policy or policyfile.read_policy(config.policy)
    compared = comparison_without_decisions(config, lot)
    if policy.learnt is None:
        return compared
    return replace(compared, decided=decided_file(policy, policyfile.policy_path(config.policy)))


def decided_file(policy: Policy, path: Path) -> DecidedFile:
    """The file of decided pictures that the policy in the file `path` names. Raises DataError if there is none."""
    assert policy.learnt is not None
    named = path.parent / Path(policy.learnt.file).expanduser()
    if not named.is_file():
        raise DataError(
            f"policy {policy.name}: learnt.file {policy.learnt.file} is not there",
            next_step="keep it beside the policy, as stylegate learn wrote both.",
        )
    return DecidedFile(named, policy.learnt.sha256)
