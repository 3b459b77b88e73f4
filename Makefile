PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SONG := caesium-30s

.PHONY: setup help demo test test-fast check format docs docs-serve bench wheel release clean lock

## the development environment, in .venv
setup: .venv/installed

# The lock is for development and tests; users of the wheel get whatever pyproject.toml allows.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

## this list
help:
	@awk '/^## / { about = substr($$0, 4); next } \
		about && /^[a-z-]+:/ { sub(/:.*/, ""); printf "make %-10s %s\n", $$0, about } { about = "" }' Makefile

## split the example song
demo: setup
	$(BIN)/stemsplit examples/$(SONG).mp3 --out stems --force
	@echo; echo "stems/$(SONG)"; ls -1sh stems/$(SONG) | tail -n +2
	@echo; echo "Listen: open stems/$(SONG)/vocals.wav in any player."

# A worker per core, with one thread each: a second one would wait for the core more than it computes.
# Python keeps the compiled tests and modules, even where it is told not to: each worker and program loads them.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses auto --maxprocesses 4 \
	--dist worksteal --durations 25

## every test
test: setup
	$(PYTEST) $(PYTEST_OPTIONS)

## the quick tests, a minute: no training, cluster, browser, ffmpeg or process of its own
test-fast: setup
	$(PYTEST) -m "not slow and not subprocess" $(PYTEST_OPTIONS)

## lint, formatting and types
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## mend what `make check` says of formatting, and of lint where ruff can
format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The theme's authors announce the program that follows MkDocs.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

## build the documentation site in build/site, with all links checked
docs: setup
	$(MKDOCS) build --strict --quiet
	@echo "build/site/index.html"

## show the documentation site at http://127.0.0.1:8000, and build it again after each change
docs-serve: setup
	$(MKDOCS) serve

# Over an hour, most of it for the file of eight hours: BENCH_OPTIONS="--longest 1" is half of it, --quick less.
## speed and memory, against other programs
bench: setup build/peers/installed
	$(BIN)/python bench/run.py $(BENCH_OPTIONS)

build/peers/installed: bench/peers.txt
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt \
		torch numpy einops julius tqdm
	build/peers/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --requirement bench/peers.txt
	@touch $@

## build the wheels of the program and of the other models, and try them
wheel: setup
	$(BIN)/python .ci/release.py wheels

## build and check what a release uploads, with each Python that is installed
release: setup
	$(BIN)/python .ci/release.py release $(RELEASE_OPTIONS)

## pin what tests run with again, for every Python and system; pins that still fit stay
lock: setup
	$(PIP) install uv
	$(BIN)/python -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --no-annotate \
		--custom-compile-command "make lock" --quiet --output-file constraints.txt

## remove the environment, builds, stems and caches
clean:
	rm -rf .venv build dist stems *.egg-info models/more/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
