"""Review pictures in a browser: large, by keyboard, blind; every answer is kept the moment it is given.

    stylegate review batch=NAME                      opens a page on this machine; Ctrl-C ends it
    stylegate review images=DIR references=DIR       the same for any folder
    stylegate review batch=NAME port=0 open=false    any free port; prints the address alone

Asks about the pictures that the gate holds for review, in an order of each reviewer's own. Scores and what others said
are not shown. An answer is a decision under the policy and its guideline, for the checks that the picture is in review
for, and settles nothing else; `stylegate gate` with the same words applies it. Returns 0 once nothing is left, else 11.

The lot is locked while it is judged, and not while the page is open: gate may run beside it. A picture that changed
since is not shown.
"""

import os
import shlex
import sys
import webbrowser

from eval.judging.judge import judge
from eval.lot.lot import Lot, locked_lot
from eval.reviewing.queues import borderline_queue
from eval.reviewing.session import Session
from stylegate.config import Config, as_dict
from stylegate.errors import Exit
from stylegate.words import counted

# What names the lot again, and how it is judged: these words alone are repeated in what to run next.
WORDS = ("brand", "images", "out", "references", "foreign", "encoder", "policy", "calibration")


def review(config: Config) -> int:
    """Judge the lot, serve the page until Ctrl-C, and say what is left. Returns 0 if every picture is decided."""
    from eval.reviewing import server

    with locked_lot(config) as lot:
        queue = borderline_queue(judge(config, lot), f"stylegate gate {words_of_lot(config, lot)}")
    session = Session(queue)
    if not queue.pictures:
        print("review: no picture is in review\nNext: stylegate gate with the same words says how the lot stands")
        return Exit.PASS
    token = server.new_token(config.host)
    found = server.listen(config.host, config.port)
    address = server.address_of(found, token)
    left = len(queue.pictures) - session.count_decided()
    print(f"review: {counted(left, 'picture')} of {queue.title} to decide, {session.count_decided()} decided before")
    print(f"{address}   Ctrl-C ends it; every answer is kept at once", flush=True)
    if config.open and can_open_browser():
        webbrowser.open(address)
    server.serve(server.application(session, config.host, token), found)
    return print_result(session)


def print_result(session: Session) -> int:
    """Print how many pictures are decided and left, and what to run next. Returns the exit code."""
    counts = session.verdict_counts()
    decided = counts["accept"] + counts["reject"]
    print(
        f"\nreview: {decided} decided ({counts['accept']} accept, {counts['reject']} reject), "
        f"{decided - session.decided_before} of them now; {counts['open']} left"
    )
    print(f"Next: {session.queue.next_words}")
    return Exit.REVIEW if counts["open"] else Exit.PASS


def words_of_lot(config: Config, lot: Lot) -> str:
    """The words that name the lot and how it is judged, for a command; what has its default is left out."""
    given, usual = as_dict(config), as_dict(Config())
    changed = {name: given[name] for name in WORDS if given[name] != usual[name]}
    if lot.record:
        changed = {"batch": lot.out.name} | {n: v for n, v in changed.items() if n not in ("brand", "images")}
    if given["score"] != usual["score"]:
        scored = {f"score.{n}": v for n, v in given["score"].items() if v != usual["score"][n] and n != "batch_size"}
        changed |= scored
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in changed.items())


def can_open_browser() -> bool:
    """Whether a browser can be shown: not in CI, and on Linux with a display alone."""
    if os.environ.get("CI"):
        return False
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) or sys.platform in ("darwin", "win32")
