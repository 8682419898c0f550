# make demo   sets up .venv and shows a swarm;  make test   sets up .venv and runs the tests
# A GPU user chooses another build of PyTorch:  make demo TORCH=torch
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN = .venv/bin
# Tests that may share the machine with others'.
APART = tests/benchmarks tests/client tests/economy tests/examples tests/families tests/ledger tests/ledger_client tests/node tests/protocol

.PHONY: demo test test-slow lint bench clean

demo: .venv/ready
	@$(BIN)/nectar demo

test: .venv/ready
	@$(BIN)/python -m pytest -m "not slow" --durations=10 -n 2 --dist loadfile $(APART)
	@$(BIN)/python -m pytest -m "not slow" --durations=10 $(addprefix --ignore=,$(APART)) tests

test-slow: .venv/ready
	@$(BIN)/python -m pytest -m slow --durations=10 -n 2 $(APART)
	@$(BIN)/python -m pytest -m slow --durations=10 $(addprefix --ignore=,$(APART)) tests

lint: .venv/ready
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/ready
	@$(BIN)/python -m benchmarks.serving
	@$(BIN)/python -m benchmarks.survival
	@$(BIN)/python -m benchmarks.placement
	@$(BIN)/python -m benchmarks.speculation
	@$(BIN)/python -m benchmarks.profiles
	@$(BIN)/python -m benchmarks.ledger
	@$(BIN)/python -m benchmarks.crash
	@$(BIN)/python -m benchmarks.economy

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nectar needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
