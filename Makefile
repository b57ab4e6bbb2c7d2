# Every target sets up what it needs in .venv, given Python >= 3.11 with pip.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c requirements.txt
SOURCES := setup.cfg pyproject.toml requirements.txt
JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.DEFAULT_GOAL := help
.PHONY: help demo demo-progan demo-stylegan digits test test-fast test-browser test-stores test-slurm lint docs setup setup-ci clean

help:
	@echo 'make demo    train BigGAN on emoji into runs/emoji'
	@echo 'make demo-progan, make demo-stylegan    the same with a growing GAN'
	@echo 'make digits  train BigGAN on 16 x 16 digits into runs/digits'
	@echo 'make test-fast    run the tests that cover every module once'
	@echo 'make test    run all tests on the CPU'
	@echo 'make test-browser    run the tests of the pages in Chromium'
	@echo 'make test-stores    run the tests of gs:// and s3://, with servers on this machine'
	@echo 'make test-slurm    run the tests of SLURM and mpirun, as root (6 to 15 minutes)'
	@echo 'make lint    ruff and mypy'
	@echo 'make docs    build the documentation site into .cache/site'
	@echo 'make setup   install the library and the test tools into .venv'
	@echo 'make clean   remove .venv and all caches; runs/ stays'

demo: $(VENV)/base.stamp
	@echo 'demo: training BigGAN on emoji, into runs/emoji'
	@$(PY) -m gan_jax.main --config=configs/biggan_emoji.py --workdir=runs/emoji

demo-progan demo-stylegan: demo-%: $(VENV)/plots.stamp
	@echo 'demo: training a growing GAN on emoji, into runs/$*'
	@$(PY) -m gan_jax.main --config=configs/$*_emoji.py --workdir=runs/$*
	@$(PY) experiments/growing_demos/run.py --workdir=runs/$*

digits: $(VENV)/digits.stamp
	@echo 'digits: training BigGAN on digits, into runs/digits'
	@$(PY) -m gan_jax.main --config=configs/biggan_digits.py --workdir=runs/digits

test-fast: $(VENV)/test.stamp
	@echo 'test-fast: running the tests that are not marked slow'
	@JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR='$(JAX_COMPILATION_CACHE_DIR)' \
	  $(PY) -m pytest -q -n 2 --dist=worksteal -m 'not slow and not browser and not stores and not slurm'

test: $(VENV)/test.stamp
	@echo 'test: running the tests on the CPU; compiled programs are kept in $(JAX_COMPILATION_CACHE_DIR)'
	@JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR='$(JAX_COMPILATION_CACHE_DIR)' \
	  $(PY) -m pytest -q -n 2 --dist=worksteal

test-browser: $(VENV)/browser.stamp
	@command -v chromium >/dev/null || { echo 'the browser tests need Chromium: on Debian and Ubuntu, apt-get install chromium' >&2; exit 1; }
	@echo 'test-browser: running the tests of the pages in Chromium'
	@JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR='$(JAX_COMPILATION_CACHE_DIR)' \
	  $(PY) -m pytest -q -m browser tests/explore/browser_test.py tests/study/browser_test.py

test-stores: $(VENV)/stores.stamp
	@echo 'test-stores: running the tests of object stores; their servers run on loopback'
	@JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR='$(JAX_COMPILATION_CACHE_DIR)' \
	  $(PY) -m pytest -q -n 2 --dist=worksteal -m stores

test-slurm: $(VENV)/test.stamp
	@[ "$$(id -u)" -eq 0 ] || { echo 'the SLURM tests start a cluster in namespaces, as root: sudo make test-slurm' >&2; exit 1; }
	@command -v slurmctld >/dev/null && command -v munged >/dev/null && command -v mpirun >/dev/null || { \
	  echo 'installing SLURM, munge and Open MPI for the tests'; \
	  apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends slurm-wlm munge openmpi-bin >/dev/null; \
	} || { echo 'the SLURM tests need slurm-wlm, munge and Open MPI: install them, then the same command again' >&2; exit 1; }
	@echo 'test-slurm: running the tests of SLURM and mpirun, one after the other'
	@JAX_PLATFORMS=cpu $(PY) -m pytest -v -n 0 -rs -m slurm --durations=0 \
	  tests/end_to_end/slurm_test.py tests/end_to_end/mpirun_test.py

lint: $(VENV)/test.stamp
	@echo 'lint: ruff, then mypy'
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy gan_jax

docs: $(VENV)/docs.stamp
	@echo 'docs: building the documentation site into .cache/site'
	@$(PY) -m mkdocs build --quiet --strict

setup: $(VENV)/test.stamp
	@echo 'setup: everything is installed in $(VENV)'

clean:
	@echo 'clean: removing .venv and caches; runs/ stays'
	@rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find gan_jax configs experiments tests -name __pycache__ -type d -prune \
	  -exec rm -rf {} + 2>/dev/null || true

# A stamp is older than SOURCES when the installation is.
$(VENV)/base.stamp: $(SOURCES)
	@$(call venv)
	@echo 'setup: installing jax, flax and the rest into $(VENV) (1 GB on disk, 1 to 5 minutes)'
	@$(call install,.)
	@touch $@

$(VENV)/digits.stamp: $(SOURCES)
	@$(call venv)
	@echo 'setup: installing gan_jax and scikit-learn into $(VENV) (1 to 5 minutes)'
	@$(call install,.[digits])
	@touch $(VENV)/base.stamp $@

$(VENV)/plots.stamp: $(SOURCES)
	@$(call venv)
	@echo 'setup: installing gan_jax and matplotlib into $(VENV) (1 to 5 minutes)'
	@$(call install,.[plots])
	@touch $(VENV)/base.stamp $@

$(VENV)/test.stamp: $(SOURCES)
	@$(call venv)
	@echo 'setup: installing gan_jax and the test tools into $(VENV) (1 to 5 minutes)'
	@$(call install,.[test])
	@touch $(VENV)/base.stamp $(VENV)/digits.stamp $(VENV)/plots.stamp $@

$(VENV)/browser.stamp: $(VENV)/test.stamp
	@echo 'setup: installing NiceGUI and Playwright into $(VENV) (less than a minute)'
	@$(call install,.[test$(comma)browser])
	@touch $@

$(VENV)/stores.stamp: $(VENV)/test.stamp
	@echo 'setup: installing clients and servers of object stores into $(VENV) (200 MB, a minute)'
	@$(call install,.[test$(comma)stores])
	@touch $@

# All extras that CI needs, in one go.
setup-ci: $(VENV)/ci.stamp

$(VENV)/ci.stamp: $(SOURCES)
	@$(call venv)
	@echo 'setup: installing gan_jax and all test tools into $(VENV) (1 to 5 minutes)'
	@$(call install,.[test$(comma)browser$(comma)docs])
	@touch $(VENV)/base.stamp $(VENV)/digits.stamp $(VENV)/plots.stamp
	@touch $(VENV)/test.stamp
	@touch $(VENV)/browser.stamp $(VENV)/docs.stamp $@

$(VENV)/docs.stamp: $(VENV)/test.stamp
	@echo 'setup: installing MkDocs into $(VENV) (less than a minute)'
	@$(call install,.[docs])
	@touch $@

comma := ,

define venv
if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    echo 'gan_jax needs Python 3.11 or newer, which $(PYTHON) is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; \
    exit 1; }; \
  $(PYTHON) -m venv --clear $(VENV) || { \
    echo 'could not make $(VENV): on Debian and Ubuntu, apt-get install python3-venv' >&2; \
    exit 1; }; \
fi
endef

define install
$(PIP) -e '$(1)' || { \
  echo 'setup: pip could not install (see above); the same command tries again' >&2; \
  exit 1; }
endef
