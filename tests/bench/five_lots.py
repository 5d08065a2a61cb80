"""Judge the five lots of tests/bench/same_verdicts.py by whichever build is on the path; it runs this as a program.

    STYLEGATE_HOME=HOME PYTHONPATH=CHECKOUT python tests/bench/five_lots.py PLACE CHECKOUT

PLACE/pictures/ and PLACE/policies/ hold the inputs. After each command that judges, the lot's verdicts.jsonl,
scores.parquet and junit.xml are copied to PLACE/kept/<lot>/<number>-<verb>/, and its exit code is added to
PLACE/kept/<lot>/exit_codes.json. Nothing here imports the project but its command line, so that any build can be run.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import stylegate
from stylegate.cli import main

LOTS = ("demo", "defects", "real", "planned", "calibrated")
FILES = ("verdicts.jsonl", "scores.parquet", "junit.xml")
SLOTS, SECOND_ATTEMPTS = 24, (1, 5, 9)


class Lot:
    """One lot: where its pictures and its results lie, and what has been kept of it so far."""

    def __init__(self, place: Path, name: str, out: Path) -> None:
        self.pictures, self.out, self.kept = place / "pictures" / name, out, place / "kept" / name
        self.policies, self.codes = place / "policies", {}

    def call(self, verb: str, *words: str) -> None:
        """Run one verb and keep its exit code and the three files as they are after it."""
        code = main([verb, *words])
        step = f"{len(self.codes):02d}-{verb}"
        self.codes[step] = int(code)
        for name in FILES:
            if (self.out / name).is_file():
                (self.kept / step).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.out / name, self.kept / step / name)
        self.kept.mkdir(parents=True, exist_ok=True)
        (self.kept / "exit_codes.json").write_text(json.dumps(self.codes, indent=1))


def folder(place: Path, name: str) -> tuple[Lot, list[str]]:
    """A lot that is a folder of pictures, and the words that every verb is given for it."""
    lot = Lot(place, name, place / "home" / "lots" / name)
    return lot, [f"images={lot.pictures}", f"out={lot.out}", "hardware=cpu"]


def demo(place: Path) -> None:
    lot, words = folder(place, "demo")
    lot.call("gate", *words, "brand=neon", f"policy={lot.policies / 'default.yaml'}")
    lot.call("gate", *words, "brand=neon", f"policy={lot.policies / 'strict.yaml'}")  # nothing is encoded again
    lot.call("gate", *words, "references=riso", f"policy={lot.policies / 'default.yaml'}", "observe=true")


def defects(place: Path) -> None:
    lot, words = folder(place, "defects")
    lot.call("gate", *words, "brand=neon", f"policy={lot.policies / 'default.yaml'}")
    lot.call("gate", *words, f"policy={lot.policies / 'default.yaml'}")  # without references


def real(place: Path) -> None:
    lot, words = folder(place, "real")
    policy = f"policy={lot.policies / 'default.yaml'}"
    lot.call("gate", *words, f"references={place / 'pictures' / 'references'}", policy)


def planned(place: Path) -> None:
    """Eight traits of one plan, pictures of three brands in its slots, some slots with a second attempt."""
    batch = place / "home" / "data" / "batches" / "planned"
    lot = Lot(place, "planned", batch)
    words = ["brand=neon", "traits=collectible", f"plan.num_images={SLOTS}", "lora_file=none", "batch=planned"]
    lot.call("plan", *words)
    for source in sorted(lot.pictures.glob("*.png")):
        (batch / "images").mkdir(exist_ok=True)
        shutil.copyfile(source, batch / "images" / source.name)
    lot.call("score", "batch=planned", "brand=neon", "hardware=cpu")
    lot.call("gate", "batch=planned", "brand=neon", f"policy={lot.policies / 'default.yaml'}", "hardware=cpu")
    lot.call("gate", "batch=planned", "brand=neon", f"policy={lot.policies / 'strict.yaml'}", "hardware=cpu")


def calibrated(place: Path) -> None:
    """Labels, a calibration and a certificate; then a package, and another gate beside it."""
    lot, words = folder(place, "calibrated")
    words += ["references=neon", f"policy={lot.policies / 'calibrated.yaml'}"]
    lot.call("gate", *words)
    lot.call("calibrate", *words)
    lot.call("calibrate", *words, f"decisions={filled(lot.out / 'calibrate.csv')}")
    lot.call("gate", *words)
    lot.call("certify", *words)
    lot.call("certify", *words, f"decisions={filled(lot.out / 'audit.csv')}")
    lot.call("gate", *words)
    lot.call(
        "export", *words[:2], "source_type=trainedAlgorithmicMedia", "name=calibrated"
    )  # it reads the folders alone
    lot.call("verify", *(str(path) for path in sorted((place / "home" / "data" / "exports").glob("*-v1"))))
    lot.call("gate", *words)


def filled(sheet: Path) -> Path:
    """The worksheet with a verdict in every row: pictures of another brand are rejects."""
    target = sheet.with_name(f"filled-{sheet.name}")
    if not sheet.is_file():
        return target  # the next command says that it is missing
    with sheet.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    for row in rows:
        row |= {"verdict": "reject" if "riso" in row["file"] else "accept", "who": "anna", "why": "seen"}
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return target


if __name__ == "__main__":
    where, checkout = Path(sys.argv[1]), Path(sys.argv[2])
    assert Path(stylegate.__file__).is_relative_to(checkout), f"{stylegate.__file__} is not the build in {checkout}"
    for lot_name in LOTS:
        print(f"== {lot_name}", flush=True)
        globals()[lot_name](where)
