# Needs make and python3 (3.11 to 3.13), nothing else. Every step is skipped when its inputs have not changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-bench
LAB_PEERS := evidently nannyml alibi-detect river
# uv installs in a tenth of pip's time. Behind a package mirror that only pip is told of:
# make setup INSTALL='.venv/bin/python -m pip install'
# The certificates of the system: networks that inspect traffic have their own.
export UV_SYSTEM_CERTS := 1
INSTALL ?= $(BIN)/uv pip install --quiet --python $(BIN)/python
PEERS_INSTALL ?= $(BIN)/uv pip install --quiet --python $(PEERS)/bin/python
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links

# Modules are compiled when first imported, not all at once (a minute of work); so the result must be kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak fuzz lint bench detection docs site audit dashboard compose-env requirements kafka-jars clean

help:  ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.kafka  ## Make the virtual environment, install the program, fetch Kafka.

demo: setup  ## Run everything on this machine; options go into ARGS, as in make demo ARGS=--fresh.
	@$(BIN)/clv-drift demo $(ARGS)

test: lint .venv-mlflow/.done  ## Lint, then run every test.
	@$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder $(ARGS)

soak: setup $(VENV)/.dev  ## Kill and freeze processes at random for half an hour, then compare to the byte.
	@$(BIN)/pytest -s -p no:logging tests/soak.py $(ARGS)

fuzz: .venv-fuzz/.done  ## Feed strangers' bytes to every reader, guided by coverage, a minute each.
	@cd tests && PYTHONPATH=.. ../.venv-fuzz/bin/python fuzz.py --kept=../var/fuzz $(ARGS)

lint: $(VENV)/.dev  ## Check style, formatting, types and the direction of imports.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev $(VENV)/.kafka $(PEERS)/.done  ## Measure every number that the documentation gives, peers beside it.
	@set -e; for file in ingest worker scale growth takeover compare; do echo "== bench/$$file.py"; $(BIN)/python bench/$$file.py; done

detection: $(VENV)/.dev $(LAB_PEERS:%=.venv-lab-%/.done)  ## Measure false alarms and power of the detectors, peers beside them.
	@$(BIN)/python bench/detection.py --population all --peers all $(ARGS)

docs: $(VENV)/.base  ## Write the reference pages anew from the code.
	@$(BIN)/python docs/generate.py

site: $(VENV)/.dev  ## Build the documentation as a site, into site/.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: $(VENV)/.dev  ## Look the pinned packages up in the lists of known flaws (online only, so not in CI).
	@$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes \
		$(foreach list,base dev mlflow,-r requirements/$(list).txt)

dashboard: $(VENV)/.dev  ## Write Grafana's dashboard anew from the code.
	@$(BIN)/python grafana/generate.py

compose-env:  ## Write the secrets that docker-compose.yml needs; what is there is kept.
	@sh config/compose-env.sh
	@mkdir -p data

requirements: $(VENV)/.build  ## Resolve the dependencies anew and write the hashed lists.
	@$(COMPILE) --upgrade requirements/build.in -o requirements/build.txt
	@$(COMPILE) --upgrade pyproject.toml --extra embedded -o requirements/base.txt
	@$(COMPILE) --upgrade pyproject.toml --extra embedded --extra dev -c requirements/base.txt \
		-o requirements/dev.txt
	@$(COMPILE) --upgrade requirements/mlflow.in -o requirements/mlflow.txt
	@$(COMPILE) --upgrade requirements/fuzz.in -o requirements/fuzz.txt
	@$(COMPILE) --upgrade bench/requirements.in -o bench/requirements.txt

kafka-jars: $(VENV)/.base  ## Resolve Kafka's jars anew and write their sums.
	@$(BIN)/python -m streams.kafka_jars > streams/kafka_jars.sha256.new
	@mv streams/kafka_jars.sha256.new streams/kafka_jars.sha256

clean:  ## Remove what make has made; var/ and data/ stay.
	rm -rf $(VENV) $(PEERS) .venv-mlflow .venv-fuzz .venv-lab-* .cache dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# The order of the stamps is the order of the installation; each is written when its step has ended well.
$(VENV)/.build: requirements/build.txt | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.base: requirements/base.txt pyproject.toml $(VENV)/.build
	@echo "installing the program and what it needs"
	@$(INSTALL) --require-hashes -r requirements/base.txt
	@$(INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.base
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# The programs that the worker is compared with, apart: their pins do not agree with ours, and bytewax wants 3.11.
$(PEERS)/.done: bench/requirements.txt $(VENV)/.build
	@echo "installing the programs to compare with"
	@$(BIN)/uv venv --quiet --clear --python 3.11 $(PEERS)
	@$(PEERS_INSTALL) --require-hashes -r bench/requirements.txt
	@touch $@

# An MLflow server for the tests, apart: its pins do not agree with ours.
.venv-mlflow/.done: requirements/mlflow.txt $(VENV)/.build
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-mlflow
	@$(BIN)/uv pip install --quiet --python .venv-mlflow/bin/python --require-hashes -r $<
	@touch $@

# The fuzzer, beside what the tests need.
.venv-fuzz/.done: requirements/fuzz.txt requirements/dev.txt $(VENV)/.dev
	@$(BIN)/uv venv --quiet --clear --python 3.11 .venv-fuzz
	@$(BIN)/uv pip install --quiet --python .venv-fuzz/bin/python --require-hashes -r requirements/dev.txt -r $<
	@touch $@

# The drift detectors that ours are compared with, an environment each.
.venv-lab-%/.done: bench/lab/requirements-%.txt $(VENV)/.build
	@echo "installing $* to compare with"
	@$(BIN)/uv venv --quiet --clear --python 3.11 .venv-lab-$*
	@$(BIN)/uv pip install --quiet --python .venv-lab-$*/bin/python -r $<
	@touch $@

$(VENV)/.kafka: streams/kafka_jars.sha256 $(VENV)/.base
	@$(BIN)/clv-drift broker --prepare
	@touch $@
