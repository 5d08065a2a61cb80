"""The promise from end to end: folders judged and certified by the verbs, with the renderer's truth as reviewer.

    python -m tests.bench.promise_end_to_end [brand ...] [lots=20]      3 CPU minutes a brand; exit 1 if broken

`lots=` is the number of lots of each of two policies.
Each lot is a folder of 150 true renders and some with planted defects (style mixed by half, blur, noise, JPEG, colour
cast, crop, occlusion, half drawn; strengths of shared/data/defects.yaml). By the default policy few of those are
accepted; by a lax one (nothing but blank pictures is refused) the accepted lot lies just beyond the promise. A reviewer
who knows the truth fills in audit.csv until the lot is certified or all of it was seen. Printed: labels, and what
share of the package is rejects; the promise is broken where that exceeds alpha. Then a calibration of 140 labels on
one lot of a policy whose style is calibrated, and what a second lot gets by it: stale, since a folder does not say how
it was made.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from eval.promise.auditplan import read_audit_terms
from eval.promise.certificate import certified_digests, read_certificate
from stylegate import files, pictures
from stylegate.cli import main
from tests.bench import meaning
from tests.worksheets import fill_in
from train.miniature.styles import BRANDS

GOOD, LOTS, ALPHA, DELTA = 150, 20, 0.05, 0.05
CLASSES = ("style mix .5", "blur", "noise", "jpeg", "colour_cast", "crop", "occlusion", "half_drawn")
LAX = "version: 1\nchecks: {contrast: {reject_below: 6}}\n"
CALIBRATED = "version: 1\nchecks: {contrast: {reject_below: 6}, style: calibrated}\n"


def lot(place: Path, good: list[bytes], bad: list[bytes], spoilt: int, rng: np.random.Generator) -> set[str]:
    """Write a folder of pictures in an order that says nothing; the sha256 of its true rejects."""
    chosen = [(content, False) for content in rng.choice(np.array(good, object), GOOD, replace=False)]
    chosen += [(content, True) for content in rng.choice(np.array(bad, object), spoilt, replace=False)]
    place.mkdir()
    rejects = set()
    for number, i in enumerate(rng.permutation(len(chosen))):
        content, is_bad = chosen[i]
        path = place / f"{number:04d}.png"
        path.write_bytes(content)
        if is_bad:
            rejects.add(files.sha256_of_file(path))
    return rejects


def review(sheet: Path, rejects: set[str]) -> Path:
    """The worksheet, filled in by the truth."""
    return fill_in(
        sheet, lambda i, row: {"verdict": "reject" if row["sha256"] in rejects else "accept", "who": "truth"}
    )


def certified(place: Path, rejects: set[str], policy: str, brand: str) -> tuple[int, int, float, float]:
    """Pictures accepted, labels until certified, the share of rejects among accepted, and among what may leave."""
    out = place.with_name(f"{place.name}-out")
    words = [f"images={place}", f"references={brand}", f"policy={policy}", f"out={out}"]
    main(["gate", *words])
    words += ["promise.num_labels=20"]
    accepted = [row["sha256"] for row in files.read_jsonl(out / "verdicts.jsonl") if row["verdict"] == "accept"]
    code = main(["certify", *words])
    known = {sha256 for terms in read_audit_terms(out) for sha256 in terms.known_rejects}
    while code == 13:
        code = main(["certify", *words, f"decisions={review(out / 'audit.csv', rejects | known)}"])
        if code == 13 and len((out / "audit.csv").read_text().splitlines()) == 1:  # all were looked at
            code = main(["certify", *words, "promise.known_rejects=0"])
    assert code == 0, code
    found = read_certificate(out / "certificate.json")
    leaving = certified_digests(found)
    shutil.rmtree(place)
    return (
        len(accepted),
        found.proven_attempt().labels,
        float(np.mean([s in rejects for s in accepted])),
        float(np.mean([s in rejects for s in leaving])),
    )


def promises(brand: str, place: Path, lots: int) -> int:
    """Print every lot; how many promises were broken."""
    good, planted = meaning.planted(brand)
    whole = [pictures.png_bytes(image) for _, image in good]
    spoilt = [pictures.png_bytes(image) for name in CLASSES for _, image in planted[name]]
    rng, broken = np.random.default_rng(7300), 0
    (place / "lax.yaml").write_text(LAX)
    for policy, many in (("default", 30), (str(place / "lax.yaml"), 12)):
        rows = []
        for number in range(lots):
            folder = place / f"{Path(policy).stem}-{number}"
            rejects = lot(folder, whole, spoilt, many, rng)
            rows.append(certified(folder, rejects, policy, brand))
        accepted, labels, before, after = np.array(rows).T
        over = int((after > ALPHA).sum())
        broken += over
        print(f"\n{brand}, {Path(policy).stem}: {lots} lots of {GOOD} good and {many} spoilt pictures")
        print(f"  accepted {accepted.mean():.0f}, of them rejects {before.mean():.1%} (at most {before.max():.1%})")
        print(f"  labels until certified: {np.median(labels):.0f} (median), {labels.max():.0f} at most")
        print(f"  rejects in what may leave {after.mean():.1%}, at most {after.max():.1%}; broken promises {over}")
    return broken + calibrated(brand, place, whole, spoilt, rng)


def calibrated(brand: str, place: Path, good: list[bytes], bad: list[bytes], rng: np.random.Generator) -> int:
    """One calibration, and another folder by it; 1 if its promise was broken."""
    (place / "calibrated.yaml").write_text(CALIBRATED)
    folder, out = place / "first", place / "first-out"
    rejects = lot(folder, good, bad, 30, rng)
    policy = f"policy={place / 'calibrated.yaml'}"
    words = [f"images={folder}", f"references={brand}", policy, f"out={out}"]
    main(["gate", *words])
    main(["calibrate", *words, "promise.num_labels=140"])
    answers = review(out / "calibrate.csv", rejects)
    code = main(["calibrate", *words, "promise.num_labels=140", f"decisions={answers}"])
    main(["gate", *words])
    going = [row["sha256"] for row in files.read_jsonl(out / "verdicts.jsonl") if row["verdict"] == "accept"]
    share = float(np.mean([s in rejects for s in going])) if going else 0.0
    lot(place / "second", good, bad, 30, rng)
    kept = f"calibration={out / 'calibration.json'}"
    main(["gate", f"images={place / 'second'}", f"out={place / 'second-out'}", f"references={brand}", policy, kept])
    state = files.read_json(place / "second-out" / "gate.json", "the gate's record", "promise")["promise"]["state"]
    print(
        f"\n{brand}, calibrated style: exit {code}; {len(going)} of {GOOD + 30} accepted, {share:.1%} of them rejects; "
        f"another folder by it: {state}"
    )
    return int(code == 0 and share > ALPHA) + int(state != "stale")


def run(words: list[str]) -> int:
    brands = [word for word in words if "=" not in word] or list(BRANDS)
    each = int(next((word.removeprefix("lots=") for word in words if word.startswith("lots=")), LOTS))
    broken, lots = 0, 0
    for brand in brands:
        with tempfile.TemporaryDirectory() as place:
            broken += promises(brand, Path(place), each)
            lots += 2 * each
    allowed = lots * DELTA + 2 * (lots * DELTA * (1 - DELTA)) ** 0.5
    print(f"\nbroken promises: {broken} of {lots} lots (at most {allowed:.1f} would be chance)")
    return int(broken > allowed)


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
