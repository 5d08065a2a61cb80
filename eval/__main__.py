"""`accelerate launch -m eval images=DIR references=DIR`: `stylegate score` of the same words, on every process."""

import sys

from stylegate.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["score", *sys.argv[1:]]))
