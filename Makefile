# make demo   optimise a real operator on this CPU, write the report and say where
# make test   lint, layer contract, types, tests
#
# Everything is installed into .venv; nothing outside of this folder is changed.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0

DEMO_PROBLEM ?= rms_norm
DEMO_DTYPE ?= f32
DEMO_SECONDS ?= 30
DEMO_RUN ?= demo-run

BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.PHONY: demo test lint results-cpu clean
.DELETE_ON_ERROR:

demo: compiler $(VENV)/.installed
	$(BIN)/kernelwright optimize $(DEMO_PROBLEM) --dtype $(DEMO_DTYPE) --run $(DEMO_RUN) \
		--minutes $$(awk 'BEGIN { print $(DEMO_SECONDS) / 60 }')
	@echo
	@echo "The report: $(abspath $(DEMO_RUN))/report.html"

test: compiler $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGUMENTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@if $(BIN)/pyright --version >/dev/null 2>&1; then $(BIN)/pyright --pythonpath $(BIN)/python; \
	else echo "pyright cannot be started here (it needs Node): types are not checked"; fi

.PHONY: compiler
compiler:
	@command -v g++ >/dev/null || command -v clang++ >/dev/null || { echo "kernelwright: there is no \
	C++ compiler here; install g++ 11 or later (Debian and Ubuntu: apt-get install g++)" >&2; exit 2; }

# First the CPU build from wherever pip looks already (mirrors and local wheels have it), then
# through uv, which knows torch's own index; the default build needs several gigabytes, so it is last.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kernelwright: Python 3.11 or later is needed; set PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { echo "kernelwright: Python cannot make environments; install \
	python3-venv (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	$(PIP) install '$(TORCH)+cpu' 2>/dev/null || \
	{ $(PIP) install uv && \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu '$(TORCH)'; } || \
	$(PIP) install '$(TORCH)'
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(PIP) install --editable '.[dev]'
	touch $@

# The published tables: about two minutes a row on a quiet machine; resumed where it was stopped.
RESULTS_SET ?= starter
RESULTS_RUN ?= runs/$(RESULTS_SET)
results-cpu: compiler $(VENV)/.installed
	$(BIN)/kernelwright suite --set $(RESULTS_SET) --target cpu --run $(RESULTS_RUN) --minutes 0.7 --evaluations 40
	$(BIN)/python docs/results/publish.py suite $(RESULTS_RUN)/suite.json

clean:
	rm -rf $(VENV) $(DEMO_RUN) build
