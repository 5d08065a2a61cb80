"""`accelerate launch -m eval VERB ...`: `stylegate VERB ...` on every process, for the verbs that share their work."""

import sys

from stylegate.cli import main

VERBS = ("generate", "score")

if __name__ == "__main__":
    if sys.argv[1:2] not in [[verb] for verb in VERBS]:
        raise SystemExit(f"python -m eval takes {' or '.join(VERBS)} as its first word")
    raise SystemExit(main(sys.argv[1:]))
