"""What W&B costs a training: seconds inside the tracker's calls over seconds of the loop, at most 2 %.

    python -m tests.bench.tracker             the miniature, 3 runs of 60 steps each way, about 8 minutes on two cores
    python -m tests.bench.tracker 1           one run each way, for a look

Without W&B, offline, and at a server that cuts the line once the run has begun. Medians over the runs; the loop is all
that train.loop.train_steps does, evaluations included. Beside the share stand what the tracker's own thread and
W&B's own processes spend of the CPU meanwhile, the loop's length, and how long the beginning and the end of the run
wait for W&B. Exit 1 if a share is larger.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tests.fake_wandb import FakeWandb, speaking_to

AT_MOST = 0.02
RUNS, STEPS = 3, 60
WORDS = ["brand=neon", "hardware=cpu", f"train.max_steps={STEPS}", "train.evaluate_every=30", "train.num_samples=4"]
WAYS = {
    "none": ["tracker=none"],
    "offline": ["tracker=wandb", "tracker.mode=offline"],
    "dead server": ["tracker=wandb", "tracker.mode=online"],
}


class Clocked:
    """A tracker whose calls are timed."""

    def __init__(self, tracker: Any):
        self.tracker, self.seconds, self.calls = tracker, 0.0, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.tracker, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds, self.calls = self.seconds + time.perf_counter() - began, self.calls + 1

        return timed


def cpu_of_thread(thread: threading.Thread | None) -> float:
    """Seconds that a living thread has computed."""
    alive = thread and thread.is_alive() and thread.ident
    return time.clock_gettime(time.pthread_getcpuclockid(alive)) if alive else 0.0


def cpu_of_children() -> float:
    """Seconds that W&B's own processes have computed: wandb-core and what it starts."""
    spent = [child.cpu_times() for child in psutil.Process().children(recursive=True) if "wandb" in child.name()]
    return sum(times.user + times.system for times in spent)


def one_run(words: list[str]) -> dict[str, float]:
    """Train in this process; what the tracker cost."""
    from stylegate.cli import main
    from train import loop

    found: dict[str, float] = {}
    begin, fit = loop.make_tracker, loop.train_steps

    def begun(*arguments: Any) -> Any:
        began = time.perf_counter()
        tracker = Clocked(begin(*arguments))
        found["begin_s"] = time.perf_counter() - began
        return tracker

    def fitted(*arguments: Any) -> int:
        tracker = next(a for a in arguments if isinstance(a, Clocked))
        thread = getattr(tracker.tracker, "thread", None)
        before, thread_before, children_before = tracker.seconds, cpu_of_thread(thread), cpu_of_children()
        began = time.perf_counter()
        done = fit(*arguments)
        found["loop_s"] = time.perf_counter() - began
        found["inside_s"] = tracker.seconds - before
        found["thread_s"] = cpu_of_thread(thread) - thread_before
        found["processes_s"] = cpu_of_children() - children_before
        end = tracker.tracker.finish_tracking

        def ended() -> None:
            at = time.perf_counter()
            end()
            found["end_s"] = time.perf_counter() - at

        tracker.tracker.finish_tracking = ended
        return done

    loop.make_tracker, loop.train_steps = begun, fitted  # type: ignore[assignment]
    assert main(["train", *words]) == 0
    return found


def measured(way: str, number: int) -> dict[str, float]:
    """One run in a process and a home of its own; the server of "dead server" cuts the line when it has begun."""
    with tempfile.TemporaryDirectory() as home, FakeWandb() as server, speaking_to(server.url):
        environment = os.environ | {"STYLEGATE_HOME": home, "WANDB_ERROR_REPORTING": "false"}
        command = [sys.executable, "-m", "tests.bench.tracker", "run", *WORDS, *WAYS[way], f"name=cost-{number}"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while process.poll() is None and "UpsertBucket" not in server.requests:
            time.sleep(0.1)
        server.fail("log", "cut")
        out, _ = process.communicate()
        assert process.returncode == 0, way
        return json.loads(out.splitlines()[-1])


def main(runs: int) -> int:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(runs):
        for way in WAYS:  # in turns, so that a slow spell of the machine meets all
            found[way].append(measured(way, number))
    print(f"{'':<14}{'share':>8}{'inside':>10}{'loop':>9}{'thread CPU':>12}{'W&B CPU':>10}{'begin':>8}{'end':>8}")
    missed = []
    for way, results in found.items():
        share = median(r["inside_s"] / r["loop_s"] for r in results)
        middle = {name: median(r[name] for r in results) for name in results[0]}
        print(
            f"{way:<14}{share:>8.2%}{middle['inside_s'] * 1000:>7.1f} ms{middle['loop_s']:>7.1f} s"
            f"{middle['thread_s']:>10.2f} s{middle['processes_s']:>8.2f} s{middle['begin_s']:>6.1f} s"
            f"{middle['end_s']:>6.1f} s"
        )
        missed += [f"{way}: {share:.2%}"] if share > AT_MOST else []
    print("\n".join(["missed:", *missed]) if missed else f"every share is at most {AT_MOST:.0%}")
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(one_run(sys.argv[2:])))
        raise SystemExit(0)
    assert Path("tests/bench/tracker.py").exists(), "from the checkout"
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
