# Everything is installed into .venv/ from the locks in requirements/: names, versions and hashes.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install dev deploy-tools serve test static check fmt bench bench-audit bench-monitor bench-replicas bench-revocation simulate lock clean

BIN := .venv/bin
PIP_INSTALL := -m pip --disable-pip-version-check --quiet --quiet install
PIP := $(BIN)/python $(PIP_INSTALL)
CODE := secure_cache tests bench scripts
# What `make test T=tests/policy` narrows the tests to.
T ?=
# Two processes, each with whole files: what a file shares between its tests is started once.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed ## make .venv/ with the console script secure-cache

.venv/bin/python:
	@scripts/venv.sh .venv

# With the Azure SDK, so that every kind of storage just works. requirements/run.txt is the same
# without it, for an installation on the filesystem alone.
.venv/.installed: .venv/bin/python requirements/azure.txt requirements/build.txt pyproject.toml
	$(PIP) --require-hashes -r requirements/azure.txt -r requirements/build.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

dev: .venv/.installed-dev ## also install what tests and checks need

.venv/.installed-dev: .venv/.installed requirements/dev.txt
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

deploy-tools: .venv-deploy/.installed ## make .venv-deploy/ with what checks deploy/ (checkov and others)

.venv-deploy/bin/python:
	@scripts/venv.sh .venv-deploy

.venv-deploy/.installed: .venv-deploy/bin/python requirements/deploy.txt
	.venv-deploy/bin/python $(PIP_INSTALL) --require-hashes -r requirements/deploy.txt
	@touch $@

serve: install ## run a server on 127.0.0.1:8642 and print how to point Nx at it (PORT=, DIRECTORY=)
	@scripts/serve.sh

test: dev ## run the tests (T=tests/policy for some of them)
	$(PYTEST) $(T)

static: dev ## format, lint, types, floors
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

check: static ## everything that must hold before a merge
	$(PYTEST)

fmt: dev ## format the code and mend what can be mended
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: dev ## our speed beside nginx with DAV and turborepo-remote-cache
	$(BIN)/python bench/run.py

bench-audit: dev ## the audit index over a million entries: building, asking, following
	$(BIN)/python bench/audit_index.py

bench-monitor: dev ## the monitor's first look at a large log
	$(BIN)/python bench/monitor.py

bench-replicas: dev ## 1, 3 and 8 real servers over one Azurite
	$(BIN)/python bench/replicas.py

bench-revocation: dev ## how long after a policy edit the last byte of what it revokes is served
	$(BIN)/python bench/revocation.py

simulate: dev ## the log of up to 50 replicas over slow storage, on a virtual clock
	$(BIN)/python bench/simulate.py

lock: dev ## write the locks anew from pyproject.toml and package.json (UPGRADE=1: newest versions)
	scripts/lock.sh

clean: ## remove what the targets made, except var/
	rm -rf .venv .venv-deploy .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name node_modules -prune -exec rm -rf {} +
