"""Review in a real browser: key to picture, 500 decisions at 4 a second, 10,000 in the queue; and what a stream finds.

    python -m tests.bench.review                 # about 3 minutes, nearly all of it waiting; needs Chromium
    python -m tests.bench.review stream          # the stream alone, without a browser: seconds

550 pictures of 1024 pixels (PNG, about 1.5 MB each) stand before 9,450 small ones. The server is a process of its own.
Time from key to picture is taken in the page: from the key's own time stamp until after the frame that shows the next
picture, decoded. The viewer of the stream is simulated: it has an opinion on each picture (rejects found and good ones
objected to at the rates below), notices a picture in passing with a chance, and presses a normal delay later.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from sklearn.metrics import roc_auc_score

from eval.policy import file as policyfile
from eval.promise import labels
from eval.reviewing import server, stream
from eval.reviewing.queues import ReviewPicture, ReviewQueue
from eval.reviewing.session import ReviewSession
from stylegate import files

LARGE, ALL, DECISIONS, RATE = 550, 10_000, 500, 4.0
FOUND, OBJECTED, NOTICED = 0.92, 0.03, 0.9  # of rejects; of good pictures; in passing, each time
DELAY_S, SPREAD_S, EACH_S, REJECTS, BLOCKS = 0.48, 0.11, 0.25, 0.1, 300
WATCH = """
sessionStorage.setItem('stylegate.who', 'bench');
window.times = []; window.firstAt = 0;
const shown = () => document.querySelector('#stage img') ? document.getElementById('stage').dataset.now : '';
const afterFrame = act => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = act;
  channel.port2.postMessage(0);
});
addEventListener('keydown', event => {
  const before = shown(), begun = event.timeStamp;
  const look = () => {
    if (shown() && shown() !== before) times.push(performance.now() - begun); else afterFrame(look);
  };
  afterFrame(look);
}, true);
const first = () => { if (shown()) firstAt = performance.now(); else afterFrame(first); };
afterFrame(first);
"""


@dataclass(frozen=True, slots=True)
class LargeFirst(ReviewQueue):
    """A queue whose first pictures are the large ones."""

    def order(self, who: str) -> list[str]:
        """The large pictures in the usual order, then the small ones."""
        return sorted(
            ReviewQueue.order_for_reviewer(self, who),
            key=lambda s: s in self.pictures and self.pictures[s].file[0] == "s",
        )


def with_comment(png: bytes, number: int) -> bytes:
    """The PNG with a text chunk, so that each file has another digest."""
    body = b"tEXtnumber\0" + str(number).encode()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


def drawn(seed: int, side: int) -> Image.Image:
    """Soft shapes with grain: as large as a PNG of a drawn picture."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = random.integers(-6, 7, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(soft, int) + grain, 0, 255).astype(np.uint8))


def make_queue(place: Path) -> ReviewQueue:
    """The pictures of the benchmark and their queue; drawn if they are not there."""
    folder = place / "pictures"
    if not folder.exists():
        folder.mkdir(parents=True)
        for kind, side, numbers in (("large", 1024, range(LARGE)), ("small", 64, range(LARGE, ALL))):
            bases = []
            for seed in range(8):
                drawn(seed, side).save(folder / "base.png")
                bases.append((folder / "base.png").read_bytes())
            for number in numbers:
                (folder / f"{kind}-{number:05d}.png").write_bytes(with_comment(bases[number % 8], number))
        (folder / "base.png").unlink()
    asked = {}
    for path in sorted(folder.iterdir()):
        sha256 = files.sha256_of_file(path)
        asked[sha256] = ReviewPicture(
            sha256, path, path.name, "a creature with a hat", {"eyes": "laser", "hat": "crown"}
        )
    policy = policyfile.read_policy("default")
    return LargeFirst(
        place / "out", "bench", policy, asked, {s: ["style"] for s in asked}, [], [], {}, "stylegate gate"
    )


def serve(place: Path) -> None:
    """The server's process: prints its address."""
    found = server.listening_socket("127.0.0.1", 0)
    app = server.review_application(ReviewSession(make_queue(place)))
    print(server.browser_address(found, ""), flush=True)
    server.serve_until_stopped(app, found)


def browse(place: Path) -> None:
    """Decide DECISIONS pictures at RATE a second in Chromium, and print what it took."""
    from playwright.sync_api import sync_playwright

    (place / "out").mkdir(parents=True)
    queue = make_queue(place)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.review", "serve", str(place)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        address = process.stdout.readline().strip()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.add_init_script(WATCH)
            firsts = []
            for _ in range(5):
                page.goto(address)
                page.wait_for_selector("#stage img")
                page.wait_for_timeout(300)
                firsts.append(page.evaluate("firstAt") / 1000)
            begun = time.monotonic()
            for number in range(DECISIONS):
                page.wait_for_timeout(max(0.0, 1000 * (begun + number / RATE - time.monotonic())))
                page.keyboard.press("a")
            took = time.monotonic() - begun
            page.wait_for_timeout(1000)
            times = np.array(page.evaluate("times"))
            said = page.inner_text("#saved-text")
            browser.close()
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.terminate()
        process.wait()
    rows = labels.read_stored_labels(queue.out, "review")
    print(
        f"first picture with {ALL:,} in the queue: median {statistics.median(firsts):.2f} s, worst {max(firsts):.2f} s"
    )
    print(
        f"key to next picture: median {np.median(times):.0f} ms, p95 {np.quantile(times, 0.95):.0f} ms, "
        f"p99 {np.quantile(times, 0.99):.0f} ms, worst {times.max():.0f} ms, of {len(times)}"
    )
    speed = f"{DECISIONS} decisions in {took:.0f} s ({DECISIONS / took:.2f} a second)"
    print(f"{speed}: {len({row.sha256 for row in rows})} stored, the page says {said}")
    print(f"server's memory: {memory:.0f} MB")
    assert len(rows) == len({row.sha256 for row in rows}) == DECISIONS


def simulate() -> None:
    """The area under the ROC curve of a simulated viewer: one by one, and after 1, 2 and 3 passes of a stream."""
    random = np.random.default_rng(0)
    truth: list[bool] = []
    one_by_one: list[bool] = []
    found: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for _ in range(BLOCKS):
        names = [f"{n:064x}" for n in range(stream.BLOCK)]
        bad = random.random(stream.BLOCK) < REJECTS
        objects = random.random(stream.BLOCK) < np.where(bad, FOUND, OBJECTED)
        passes = []
        for count in found:
            order = random.permutation(stream.BLOCK)
            times = EACH_S * np.arange(stream.BLOCK)
            pressed = [
                t + random.normal(DELAY_S, SPREAD_S)
                for t, n in zip(times, order, strict=True)
                if objects[n] and random.random() < NOTICED
            ]
            shown = [
                stream.PictureWithTimeShown(sha256=names[n], at_ms=1000 * float(t))
                for t, n in zip(times, order, strict=True)
            ]
            passes.append(
                stream.PassTimesAndKeyPresses(shown=shown, presses_ms=[1000 * float(max(t, 0)) for t in pressed])
            )
            probability = stream.objection_probabilities_from_key_presses(passes).probability
            found[count] += [probability[name] for name in names]
        truth += bad.tolist()
        one_by_one += objects.tolist()
    print(f"one by one: area {roc_auc_score(truth, one_by_one):.3f} ({len(truth):,} pictures, {sum(truth):,} rejects)")
    for count, scores in found.items():
        distinct = 60 / EACH_S / count
        area = roc_auc_score(truth, scores)
        print(f"stream of 240 a minute, passes {count}: area {area:.3f}, {distinct:.0f} other pictures a minute")


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        return serve(Path(sys.argv[2]))
    simulate()
    if sys.argv[1:] != ["stream"]:
        with tempfile.TemporaryDirectory() as place:
            browse(Path(place))


if __name__ == "__main__":
    main()
