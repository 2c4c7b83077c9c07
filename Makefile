# Every command a person or a machine needs. `make` alone lists them.
# Nothing here needs the network once it is installed: pip runs only when pyproject.toml, setup.py or constraints.txt changed.

PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= dev
WITH   ?= providers
ARGS   ?=
PYTEST_ARGS ?=

BIN    := $(VENV)/bin
ROOTS  := gateway router safety retrieval moe kernels
CODE   := $(ROOTS) lints tests $(wildcard benchmarks)
LINKS  := $(addprefix .typing/conclave/,$(ROOTS))
RECIPE := pyproject.toml setup.py constraints.txt
CLIENTS := $(addprefix tests/clients/,install node.txt openai2.txt openai2-tests.txt openai3.txt package.json package-lock.json)

.DEFAULT_GOAL := help
.PHONY: help run test check e2e clients bench soak docs-index schema install clean
.DELETE_ON_ERROR:

help:  ## List these commands (the default)
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(VENV)/.installed-$(or $(WITH),base)  ## Install what is missing and start the gateway on 127.0.0.1:8080 (ARGS="--port 9000"; lean: WITH=)
	@$(BIN)/conclave serve $(ARGS)

test: $(VENV)/.installed-dev  ## Run the tests; what needs more than is installed is skipped and says why
	@$(BIN)/pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev $(LINKS)  ## Format, lint, types, who imports whom, our own rules
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/mypy lints
	@$(BIN)/lint-imports
	@$(BIN)/python -m lints $(ROOTS)

e2e: $(VENV)/.installed-dev  ## A real server, the real openai client, every answer checked
	@$(BIN)/pytest tests/e2e $(PYTEST_ARGS)

clients: $(VENV)/.installed-dev tests/clients/.installed  ## Install other OpenAI clients beside ours, and run their tests
	@$(BIN)/pytest tests/clients tests/conformance $(PYTEST_ARGS)

bench: $(VENV)/.installed-dev  ## Measure the gateway against a bare pass-through (needs wrk)
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

soak: $(VENV)/.installed-dev  ## 200,000 mixed requests, one in ten left midway, 100,000 break-outs of fences and as many splits of answers (needs half an hour)
	@$(BIN)/python -m benchmarks.safety.fences
	@$(BIN)/python -m benchmarks.safety.stream_splits --splits 100000
	@$(BIN)/python -m benchmarks.gateway.soak $(ARGS)

docs-index: $(VENV)/.installed-dev  ## Index docs/ again for the quoting expert
	@$(BIN)/python -m conclave.retrieval.docs build

schema: $(VENV)/.installed-dev  ## Write config/schema.json again from the policy's models
	@$(BIN)/python -m conclave.gateway.policy.schema > config/schema.json.new
	@mv config/schema.json.new config/schema.json

install: $(VENV)/.installed-$(EXTRAS)  ## Install one extra and nothing else (EXTRAS=dev,train)

clean:  ## Remove all that these commands made, but not the gateway's state in .conclave
	@rm -rf $(addprefix tests/clients/,.installed .sdist .venv-node .venv-openai2 .venv-openai3 node_modules)
	@rm -rf $(VENV) .typing build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-base: $(RECIPE) | $(BIN)/pip
	@echo "Installing conclave-gateway into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-%: $(RECIPE) | $(BIN)/pip
	@echo "Installing conclave-gateway[$*] into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt --editable '.[$*]'
	@touch $@

tests/clients/.installed: $(CLIENTS) | $(BIN)/pip
	@echo "Installing the other OpenAI clients into tests/clients ..."
	@tests/clients/install $(BIN)/python

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Conclave needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one, for example: make run PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; } >&2
	@$(PYTHON) -m venv $(VENV)

.typing/conclave/%:  # mypy cannot see an editable install; links show it the tree as a package
	@mkdir -p $(@D)
	@ln -sfn ../../$* $@
