# Every target does its own set-up: you need only python3 (3.10 or newer) and make.
#
#   PYTHON=python3.12              the interpreter of the environment
#   VENV=.venv-oldest              another environment
#   WHEEL=dist/batchframe….whl     test that wheel instead of the source tree
#   CONSTRAINTS=constraints/oldest.txt
#   PYTEST_ARGS="-k cli -x"

PYTHON ?= python3
VENV ?= .venv
WHEEL ?=
CONSTRAINTS ?=
PYTEST_ARGS ?= -n 4

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Named after wheel and constraints: with others the environment is made again.
STAMP := $(VENV)/.made-of$(subst /,-,$(if $(WHEEL),-$(WHEEL))$(if $(CONSTRAINTS),-$(CONSTRAINTS)))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo install test coverage lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## run a prompt over real texts on a local batch service
	@$(BIN)/batchframe demo

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: $(STAMP) ## run the tests and show which lines they reach
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov=batchframe --cov-report=term:skip-covered

lint: $(STAMP) ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## measure speed and memory
	$(BIN)/python benchmarks/run.py

install: $(STAMP) ## only make the environment

clean: ## remove the environment and all build results
	rm -rf $(VENV) dist build .coverage

$(STAMP): pyproject.toml $(WHEEL) $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(if $(WHEEL)$(CONSTRAINTS),--clear) $(VENV)
	@rm -f $(VENV)/.made-of*
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --group dev $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) $(if $(WHEEL),'$(WHEEL)[all]','--editable=.[all]')
	@touch $@
