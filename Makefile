# make demo   set up and do the main job on the embedded default      make test    set up and pass the tests
# make check  lint, format, types, no host in the pins                make prove   the long proofs and benchmarks
PYTHON := $(shell for p in python3.12 python3.13 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && command -v "$$p" && break; done)
BIN := .venv/bin
STAMP := .venv/.ready
READERS := .venv/readers

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

prove: setup
	$(BIN)/python -m pytest -n 0 tests/prove tests/train/test_families.py
	$(BIN)/python -m tests.bench.miniature
	$(BIN)/python -m tests.bench.style
	$(BIN)/python -m tests.bench.promise
	$(BIN)/python -m tests.bench.policy_change
	$(BIN)/python -m tests.bench.gate
	@if $(BIN)/python -m pip install --quiet --progress-bar off --no-deps --upgrade --target $(READERS) -r tests/bench/readers.txt; then \
	PYTHONPATH=.:$(READERS) $(BIN)/python -m tests.bench.lora_files && PYTHONPATH=.:$(READERS) $(BIN)/python -m tests.bench.lora_invokeai; \
	else echo "skipped: LoRA files against lycoris-lora and InvokeAI, which could not be installed"; fi
