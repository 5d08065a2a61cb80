"""Whether the Hugging Face hub answers. Without a network its clients try for up to a minute before a name fails."""

import os
import sys
from functools import cache

from stylegate.errors import StylegateError

TIMEOUT_S = 5.0
WITHOUT_NETWORK = (
    "check the name and the network. To work without one, fetch it elsewhere with `hf download NAME --local-dir DIR` "
    "and give the path of DIR, or copy the hub's cache (HF_HOME); HF_HUB_OFFLINE=1 then reads the cache alone."
)


@cache
def go_offline_if_hub_unreachable() -> bool:
    """Ask the hub once. Where it does not answer within TIMEOUT_S seconds, its clients read their cache alone from now
    on, and a note says so. Returns whether the hub may be asked; HF_HUB_OFFLINE=1 says that it may not.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:  # no route, no name, no answer: whatever the hub's client raises
        os.environ["HF_HUB_OFFLINE"] = "1"  # for clients that are imported later
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
        print(f"note: {constants.ENDPOINT} does not answer; what was downloaded before is used", file=sys.stderr)
        return False
    return True


def first_line_of_error(error: Exception) -> str:
    """The first line of what a client of the hub raised, which often has several; the name of its class if it has no
    text.
    """
    text = str(error) if not isinstance(error, StylegateError) else error.summary
    return text.splitlines()[0] if text else type(error).__name__
