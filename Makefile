# make help lists what there is. Settings: make reproduce PROFILE=smoke, make setup KIND=gpu PYTHON=python3.11
PROFILE ?= default
RUN ?= runs/$(PROFILE)
# a folder of published data, for profiles that read it: docs/DATA.md
DATA ?=
# lists of parameter values, as in SWEEP='alpha: [0.3, 0.4]'
SWEEP ?=
# cpu or gpu: which lock; without a word, the one that is installed
KIND ?= $(patsubst .venv/.ready-%,%,$(firstword $(wildcard .venv/.ready-*) .venv/.ready-cpu))
READY := .venv/.ready-$(KIND)
# yes: tests that take half a minute or more as well
SLOW ?=
NBVAL := runs/nbval
SOURCES := lib tests notebooks tools benchmarks

# Nothing is fetched at run time; a profile with a model of the hub needs HF_HUB_OFFLINE=0.
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PYTHONNOUSERSITE := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
.PHONY: help setup lock reproduce test faults lint lab book figures publish clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY) ## install the pinned packages into .venv (KIND=gpu for a GPU)

$(READY): requirements/$(KIND).txt pyproject.toml requirements/install.sh
	@requirements/install.sh $(KIND)

lock: ## pin the packages anew, after pyproject.toml changed
	PYTHONPATH=.cache/uv requirements/compile.sh

reproduce: $(READY) ## run a profile's notebooks (PROFILE, RUN, DATA, SWEEP), print the scores
	@snakemake --cores all --nolock --quiet rules --rerun-incomplete \
	  --config profile=$(PROFILE) run=$(RUN) $(if $(DATA),data=$(DATA)) $(if $(SWEEP),sweep='$(SWEEP)')
	@python -m reasonrank $(if $(SWEEP),sweep,summary) $(RUN)
	@$(if $(SWEEP),,python -m reasonrank verify --brief --records $(RUN) --out $(RUN)/verify)

test: lint ## unit and property tests, every notebook on the smoke profile (SLOW=yes: slow ones too)
	@python -m reasonrank verify --brief --out runs/verify
	@rm -rf $(NBVAL)
	@REASONRANK_PROFILE=smoke REASONRANK_RUN_DIR=$(CURDIR)/$(NBVAL) python -m pytest tests notebooks \
	  $(if $(SLOW),,-m 'not slow') --nbval-lax --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg --nbval-cell-timeout 1200

faults: $(READY) ## kills, faulty servers, full disks and bad inputs, at full size (an hour)
	@REASONRANK_FAULTS=full python -m pytest tests/faults

lint: $(READY) ## ruff, notebooks included
	@ruff check --quiet $(SOURCES)
	@ruff format --quiet --check $(SOURCES)

figures: $(READY) ## draw the figures of a run again, from its records
	@python -m reasonrank run 07_figures --profile $(PROFILE) --run-dir $(RUN)

# the notebooks of the book: a run's where PROFILE or RUN is given, else the committed ones
BOOK = $(if $(filter command environment,$(origin PROFILE) $(origin RUN)),$(RUN)/notebooks,notebooks)
book: $(READY) ## make a site of the committed notebooks in runs/default/book (PROFILE or RUN: of a run's)
	@python -m tools.book $(BOOK) $(RUN)/book

lab: $(READY) ## open JupyterLab at the first notebook
	@python -m ipykernel install --prefix .venv --name python3 --display-name 'Python 3 (ReasonRank)' >/dev/null
	@jupyter lab notebooks/00_overview.ipynb

publish: $(READY) ## keep a run's outputs: notebooks, data/records, figures
	@python -m tools.publish $(RUN)

clean: ## remove all runs and what tools left; .venv stays
	rm -rf runs .snakemake .pytest_cache .ruff_cache .hypothesis lib/*.egg-info
	find lib tests -name __pycache__ -prune -exec rm -rf {} +
