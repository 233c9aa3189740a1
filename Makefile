# `make` lists the targets. All of them set up what they need in .venv first; a set-up that is up to date costs nothing.

VENV := .venv
BIN := $(VENV)/bin
TESTS_AT_ONCE ?= 3
export PYTHON PIP_ARGS

.DEFAULT_GOAL := help
.PHONY: help demo test vllm chaos lint types bench venv clean

help: ## this list
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile
	@echo "Variables:"
	@echo "  PYTHON=python3.12   the Python (3.11 or newer) that .venv is made with; by default the first found on PATH"
	@echo "  TESTS_AT_ONCE=3     processes that share the tests; most of these wait for workers, brokers, deadlines and files"
	@echo "  PIP_ARGS='...'      more arguments for pip install (--index-url, --extra-index-url, --find-links, --no-index ...)."
	@echo "                      On Linux a package index usually gives torch's CUDA build, several GB: without a GPU,"
	@echo "                      add PyTorch's own index of CPU builds as --extra-index-url"

demo: $(VENV)/.ready-demo ## run templates/quickstart.yaml on a real 135M model: no services, no GPU
	@$(BIN)/mloc run templates/quickstart.yaml

test: $(VENV)/.ready-test ## the tests: the fast ones, then those that load the real model
	@echo "==> Fast tests, $(TESTS_AT_ONCE) at once"
	@$(BIN)/python -m pytest -m "not model and not chaos" -n $(TESTS_AT_ONCE) --dist loadfile
	@echo "==> Tests that load the real model (tens of seconds each), $(TESTS_AT_ONCE) at once, of one thread each"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m model -n $(TESTS_AT_ONCE) --dist worksteal

vllm: .venv-vllm/.ready-vllm $(VENV)/.ready-test ## the tests of the vLLM executor on the real model, on vLLM's CPU build (ten minutes)
	@.venv-vllm/bin/python -m pytest -m model tests/executors/vllm_executor tests/executors/embedding \
		tests/test_templates.py::test_a_template_runs_on_vllm
	@echo "==> A worker of $(VENV) whose vLLM is that of .venv-vllm"
	@MLOC_PYTHON_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -m model tests/runs/test_vllm_host.py \
		tests/test_templates.py::test_an_adapter_that_a_template_trains_is_loaded_by_vllm

chaos: $(VENV)/.ready-test ## faults while runs go on: each once, then random ones (5 minutes; CHAOS_SECONDS, CHAOS_SEED)
	@$(BIN)/python -m pytest -m chaos -s

lint: $(VENV)/.ready-test ## ruff: check and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.ready-test ## mypy, strict (the first run takes a minute or two)
	@$(BIN)/mypy

bench: $(VENV)/.ready-demo ## what MLOC costs on top of bare Celery, per no-op shard
	@$(BIN)/python benchmarks/overhead.py

venv: $(VENV)/.ready-venv ## an empty .venv

clean: ## remove .venv, .venv-vllm, caches and build outputs; results stay
	rm -rf $(VENV) .venv-vllm build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-vllm/.ready-vllm: pyproject.toml constraints-vllm.txt scripts/set_up.py
	@python=$$(sh scripts/find_python.sh) && "$$python" scripts/set_up.py vllm

$(VENV)/.ready-%: pyproject.toml constraints.txt scripts/set_up.py
	@python=$$(sh scripts/find_python.sh) && "$$python" scripts/set_up.py $*
