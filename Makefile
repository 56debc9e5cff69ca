# What a person types. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
# Locks hold names, versions and hashes, no addresses.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
# Files are compiled once at installation: start-up is measured in milliseconds.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down test engines lint format bench lock schemas docs golden clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: setup ## Set up, apply the quickstart in ./demo, show its plan and a live prediction
	@./examples/demo.sh $(DEMO)

demo-down: ## Stop what the demo runs and remove ./demo
	@./examples/demo.sh --down $(DEMO)

test: setup ## Set up and run all tests, the checks of style, types and imports among them
	$(BIN)/pytest -n auto --dist worksteal -m "not bench" --durations=30 --durations-min=5

engines: setup ## Install what tests of engines need: Debian packages, Go programs (as root; half an hour once)
	@$(BIN)/python -m tests.engines install $(ENGINES)

lint: setup ## Run only the checks: ruff, mypy, import layers, size budgets
	$(BIN)/pytest -n auto tests/quality

format: setup ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: setup ## Measure against terraform and dvc (where installed), write docs/benchmarks.md (ONLY=…: some sections)
	$(BIN)/python -m tests.benchmarks $(addprefix --only ,$(ONLY)) $(addprefix --provider ,$(PROVIDER))

setup: $(STAMP) ## Only install, into .venv

$(STAMP): requirements/dev.txt requirements/bootstrap.txt pyproject.toml
	@./.ci/preflight $(PYTHON)
	@test -x $(BIN)/pip || { echo "Making $(VENV) …"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV) (two minutes at the first time) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lock: setup ## Resolve all locks anew: the project's own and those of the examples
	$(COMPILE) --extra serve --extra s3 --extra sign --extra openlineage --extra kubernetes --group dev pyproject.toml requirements/build.in --output-file requirements/dev.txt
	$(COMPILE) requirements/bootstrap.in --output-file requirements/bootstrap.txt
	for input in examples/*/requirements.in; do $(COMPILE) $$input --output-file $${input%.in}.txt || exit 1; done

schemas: setup ## Export the JSON Schemas from the models
	$(BIN)/mlstack schema > schemas/mlstack.schema.json

docs: setup ## Write what the documentation takes from the code (docs/generate.py)
	$(BIN)/python docs/generate.py

golden: setup ## Write the golden files anew; look at `git diff` before you commit
	MLSTACK_UPDATE_GOLDEN=1 $(BIN)/pytest -n auto -q -m "not bench" tests/e2e/test_examples_e2e.py tests/unit/render/test_render_plan.py

clean: demo-down ## Remove everything that make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .bench build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
