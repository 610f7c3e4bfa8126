# `make demo` trains HiVA on rendered faces and draws its answer; `make test` runs the tests. Both set up `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint conformance benchmark clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("hiva_hf needs Python 3.11 or newer; PYTHON is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# transformers' own common tests, taken from the source archive of the installed version
conformance: $(READY)
	$(BIN)/python tests/run_common_tests.py tests/common_tests_spec.py

benchmark: $(READY)
	$(BIN)/python examples/benchmark.py

clean:
	rm -rf $(VENV) demo_output
