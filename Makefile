# make demo   set up and do the main job on the embedded default      make test    set up and pass the tests
# make check  lint, format, types, no host in the pins                make prove   the long proofs and benchmarks
PYTHON := $(shell for p in python3.12 python3.13 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && command -v "$$p" && break; done)
BIN := .venv/bin
STAMP := .venv/.ready
READERS := .venv/readers
STYLES := .cache/real-styles

.PHONY: setup demo loop test check prove
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "stylegate needs Python 3.11, 3.12 or 3.13 on the PATH; install one and run this again."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off --no-compile -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # on all cores: pip compiles on one; a few files are of other Pythons
	@touch $(STAMP)

demo: setup
	$(BIN)/stylegate demo

loop: setup
	$(BIN)/python -m tests.loop

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	@! grep -n '://' constraints.txt

prove: setup # every part runs, also after one that missed a line; the last line names those that did
	@missed=; try() { echo "== $$*"; "$$@" || missed="$$missed $$*;"; }; \
	try $(BIN)/python -m pytest -n 0 tests/prove tests/train/test_families.py; \
	for bench in miniature style promise policy_change gate; do try $(BIN)/python -m tests.bench.$$bench; done; \
	if ! command -v npm >/dev/null; then echo "skipped: art by real designers, which needs node and npm"; \
	elif [ ! -f $(STYLES)/LICENCES.md ] && ! $(BIN)/python -m tests.bench.realstyles $(STYLES); then \
	echo "skipped: art by real designers, which could not be fetched"; \
	else try $(BIN)/python -m tests.bench.real $(STYLES); fi; \
	if $(BIN)/python -m pip install --quiet --progress-bar off --no-deps --upgrade --target $(READERS) -r tests/bench/readers.txt; then \
	export PYTHONPATH=.:$(READERS); try $(BIN)/python -m tests.bench.lora_files; try $(BIN)/python -m tests.bench.lora_invokeai; \
	else echo "skipped: LoRA files against lycoris-lora and InvokeAI, which could not be installed"; fi; \
	if [ -n "$$missed" ]; then echo "missed:$$missed"; exit 1; else echo "every line holds"; fi
