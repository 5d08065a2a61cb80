"""Verdicts for tests, as the gate makes them."""

from typing import Any

from eval.judging.verdicts import Reason, Verdict, worst

SHA256 = "a" * 64


def verdict(*reasons: Reason, kind: str | None = None, margin: float | None = 1.0, **more: Any) -> Verdict:
    """The verdict that the reasons lead to, or of that kind."""
    named = {"file": f"{more.get('sha256', SHA256)[:4]}.png", "sha256": SHA256, "policy_sha256": ""} | more
    return Verdict(**named, verdict=kind or worst(reasons), reasons=list(reasons), margin=margin)  # type: ignore[arg-type]
