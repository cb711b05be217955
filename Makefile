PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

export WANDB_MODE ?= offline
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
unexport HYDRA_FULL_ERROR

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check lint format-check types imports docs wheel try-wheel clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: .venv/.all ## train a small CNN to high sparsity; ends with a table and the path of a picture
	@$(BIN)/lightning-prune train -cn digits_cnn

test: .venv/.dev ## the fast tests
	$(PYTEST)

# pytest exits with 5 when it collects nothing
test-slow: .venv/.dev ## the slow tests alone
	$(PYTEST) -m slow || [ $$? -eq 5 ]

check: lint format-check types imports ## ruff, pyright, import-linter

lint: .venv/.dev
	$(BIN)/ruff check

format-check: .venv/.dev
	$(BIN)/ruff format --check

types: .venv/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: .venv/.dev
	$(BIN)/lint-imports --no-logo

docs: .venv/.dev ## build the site of docs/ into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean
	@ls site/index.html

# The wheel is made from the sdist. Every Python file, template and YAML of the checkout must be in it.
wheel: .venv/.dev ## build dist/*.tar.gz and from it dist/*.whl, and see that no file is missing
	@rm -rf build dist
	@$(BIN)/python -m build --no-isolation --outdir dist >/dev/null
	@rm -rf build
	@$(BIN)/python -m zipfile -l dist/*.whl | awk '{print $$1}' | LC_ALL=C sort >dist/inside
	@{ find lightning_prune -name '*.py' -o -path '*/templates/*'; find conf recipes -name '*.yaml' | sed 's|^|lightning_prune/|'; } \
		| LC_ALL=C sort | LC_ALL=C comm -23 - dist/inside >dist/missing
	@if [ -s dist/missing ]; then \
		echo "not in the wheel:"; cat dist/missing; exit 1; fi
	@rm dist/inside dist/missing
	@ls dist/*.tar.gz dist/*.whl

try-wheel: wheel ## install the wheel into an empty environment and run the first page of the documents there
	@rm -rf dist/try && $(PYTHON) -m venv dist/try
	@wheel=$$(ls $(CURDIR)/dist/*.whl) && dist/try/bin/pip install -qq "$$wheel[lightning,structured,hydra]" -c constraints.txt
	@sed -n '/^```python$$/,/^```$$/p' docs/index.md | grep -v '^```' >dist/try/first.py
	@cd dist/try && bin/python -I first.py && bin/lightning-prune train -cn digits_mlp hydra.run.dir=runs/first \
		&& bin/lightning-prune inspect runs/first
	@rm -rf dist/try

clean: ## remove the environment, caches and everything that runs have written
	rm -rf .venv .data build dist site ./*.egg-info runs outputs wandb lightning_logs
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find lightning_prune conf recipes tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.all: pyproject.toml setup.py constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a few minutes the first time)"
	@$(BIN)/pip install -qq -e '.[all]' -c constraints.txt
	@touch $@

# dev includes all
.venv/.dev: pyproject.toml setup.py constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a few minutes the first time)"
	@$(BIN)/pip install -qq -e '.[dev]' -c constraints.txt
	@touch .venv/.all $@
