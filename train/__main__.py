"""`accelerate launch -m train brand=neon`: the same as `stylegate train brand=neon`, on every process."""

import sys

from stylegate.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
