# Stretto needs Python 3.11 or newer and make; everything else goes into .venv. Start with `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first Python of 3.11 or newer on the PATH; `make PYTHON=/path/to/python …` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
RUNNING := .venv/.running
DEVELOPING := .venv/.developing
EVALUATING := .venv/.evaluating

SERVICES := codec embedding semantic acoustic transcriber harmony orchestrator
MEMBERS := protos shared client $(SERVICES:%=services/%)
PYPROJECTS := $(MEMBERS:%=%/pyproject.toml) deploy/pyproject.toml
SOURCES := shared client services deploy tests evals examples docs

PROMPT ?= a jazz trio with saxophone, double bass and drums
SEED ?= 7
PORT ?= # empty: STRETTO_GRPC_PORT, or 50051

.PHONY: help demo up test check format bench reliability eval protos recipes-debug scores clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNNING) ## Text to music: ten seconds into out/demo.wav and out/demo.png (PROMPT="…" SEED=…)
	@mkdir -p out
	@$(BIN)/stretto generate "$(PROMPT)" --cascade musicgen --duration-s 10 --seed $(SEED) \
	  -o out/demo.wav --picture out/demo.png

up: $(RUNNING) ## Every service in a process of its own, acoustic in two; the door is on PORT (50051)
	@STRETTO_ORCHESTRATOR_CODEC_ADDRESS=127.0.0.1:50052 \
	STRETTO_ORCHESTRATOR_EMBEDDING_ADDRESS=127.0.0.1:50053 \
	STRETTO_ORCHESTRATOR_ACOUSTIC_ADDRESS=ipv4:127.0.0.1:50054,127.0.0.1:50064 \
	STRETTO_ORCHESTRATOR_SEMANTIC_ADDRESS=127.0.0.1:50055 \
	STRETTO_ORCHESTRATOR_TRANSCRIBER_ADDRESS=127.0.0.1:50056 \
	STRETTO_ORCHESTRATOR_HARMONY_ADDRESS=127.0.0.1:50057 \
	$(BIN)/python -m stretto_client.up \
	  orchestrator=$(or $(PORT),50051) codec=50052 embedding=50053 acoustic=50054 semantic=50055 transcriber=50056 harmony=50057 acoustic=50064

serve: $(RUNNING) ## All services in one process, on PORT (STRETTO_GRPC_PORT, or 50051)
	@$(BIN)/stretto serve $(if $(PORT),--port $(PORT))

serve-%: $(RUNNING) ## One service alone, for example make serve-codec, on PORT
	@$(BIN)/stretto serve --services $* $(if $(PORT),--port $(PORT))

test: $(DEVELOPING) ## Run every test, on WORKERS processes (2)
	$(BIN)/python -m pytest -n $(or $(WORKERS),2) --dist worksteal

check: $(DEVELOPING) ## Run what CI runs beside the tests: style, types, contracts, wire
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	PATH="$(CURDIR)/$(BIN):$$PATH" bash protos/check.sh
	$(BIN)/stretto-deploy generate --check
	$(BIN)/hadolint deploy/service.Dockerfile
	$(BIN)/python .ci/check_files.py

format: $(DEVELOPING) ## Format and order the imports of every Python and proto file
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	cd protos && ../$(BIN)/buf format --write

bench: $(EVALUATING) ## Measure speed: first audio, real-time factors, beside peers
	@for program in evals/speed/[a-z]*.py; do echo "== $$program"; $(BIN)/python $$program; done

reliability: $(DEVELOPING) ## Harm what serves: kills, drains, overload, wild requests, what processes cost
	@for name in kills drains overload fuzz cost; do echo "== $$name"; $(BIN)/python evals/reliability/$$name.py; done

eval: $(EVALUATING) ## Measure quality; DATA= names the recordings and judges, corpus/ holds what recipes prepared (evals/README.md)
	$(BIN)/python evals/run.py $(if $(DATA),--data $(DATA))

protos: $(DEVELOPING) ## Generate protos/python from protos/stretto, and format and lint the wire
	PATH="$(CURDIR)/$(BIN):$$PATH" bash protos/generate.sh

.PHONY: manifests pins
manifests: $(DEVELOPING) ## Write deploy/k8s from deploy/services.toml
	@$(BIN)/stretto-deploy generate

pins: $(DEVELOPING) ## Pin what images install to what is installed here
	@$(BIN)/python -m stretto_deploy.pins > deploy/constraints.txt
	@$(BIN)/python -m stretto_deploy.pins cuda > deploy/constraints-cuda.new
	@mv deploy/constraints-cuda.new deploy/constraints-cuda.txt

image-%: ## The image of one service, for example make image-codec; make image-weights and image-weights-volume are those of the weights
	docker build -f deploy/service.Dockerfile $(if $(filter weights weights-volume,$*),--target $*,--build-arg SERVICE=$*) \
	  -t stretto-$*:local .

image-%-cuda: ## The same with a torch for GPUs, for example make image-acoustic-cuda
	docker build -f deploy/service.Dockerfile --build-arg SERVICE=$* \
	  --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 -t stretto-$*:local-cuda .

scores: $(RUNNING) ## Fill the tables of models in README.md from services/*/weights/*/config.json
	$(BIN)/python docs/model_table.py --write

recipes-debug: $(DEVELOPING) ## Every recipe from its debug configuration, on a corpus made in seconds (make test does it too)
	$(BIN)/python -m pytest tests/recipes

clean: ## Remove the environment, caches and what programs wrote
	rm -rf .venv out runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +

# What running needs. torch comes first and pinned, so that no later package chooses another build.
$(RUNNING): $(PYPROJECTS)
	@[ -n "$(PYTHON)" ] || { echo "Stretto needs Python 3.11 or newer; none is on the PATH. Install it, or: make PYTHON=/path/to/python"; exit 1; }
	@echo "Creating the environment in .venv (once; a few minutes)…"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet torch==2.13.0
	@$(BIN)/python -m pip install --quiet -e protos -e "shared[torch]" -e client $(SERVICES:%=-e services/%)
	@touch $@

# What tests, checks and recipes need on top.
$(DEVELOPING): $(RUNNING) tests/requirements.txt tests/requirements-nodeps.txt
	@echo "Adding what tests and checks need to .venv (once)…"
	@$(BIN)/python -m pip install --quiet -e protos -e "shared[torch,otlp,training]" -e client -e "deploy[validation]" \
	  $(SERVICES:%=-e services/%) \
	  -r tests/requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps -r tests/requirements-nodeps.txt
	@touch $@

# What evals need on top of that.
$(EVALUATING): $(DEVELOPING) evals/requirements.txt
	@$(BIN)/python -m pip install --quiet -r evals/requirements.txt
	@touch $@
