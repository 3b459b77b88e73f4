PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SONG := caesium-30s

.PHONY: setup demo test check bench wheel clean

setup: .venv/installed

# The lock is for development and tests; users of the wheel get whatever pyproject.toml allows.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/stemsplit examples/$(SONG).mp3 --out stems --force
	@echo; echo "stems/$(SONG)"; ls -1sh stems/$(SONG) | tail -n +2
	@echo; echo "Listen: open stems/$(SONG)/vocals.wav in any player."

# A file at a time on each core, with one thread: a second one would wait for the core more than it computes.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_OPTIONS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Over an hour, most of it for the file of eight hours: BENCH_OPTIONS="--longest 1" is half of it, --quick less.
bench: setup build/peers/installed
	$(BIN)/python bench/run.py $(BENCH_OPTIONS)

build/peers/installed: bench/peers.txt
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt \
		torch numpy einops julius tqdm
	build/peers/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --requirement bench/peers.txt
	@touch $@

# A wheel in an environment of its own, in another folder, without a network where the system can take it away.
wheel: setup
	rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt dist/*.whl
	mkdir -p build/elsewhere
	cp examples/$(SONG).mp3 build/elsewhere/
	cd build/elsewhere && if unshare -rn true 2>/dev/null; then offline="unshare -rn"; fi; \
		$$offline ../clean/bin/stemsplit $(SONG).mp3
	@ls -1sh dist build/elsewhere/stems/$(SONG)

clean:
	rm -rf .venv build dist stems *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
