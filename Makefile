# make quickstart   install into .venv, train three small systems on the embedded scenes, show a table
# make test         install, check the form (ruff), run every notebook and every test
# make lab          open JupyterLab on the notebooks
# make docs         the notebooks and the API as a site in _docs/, to be read without a network
# make colab        every notebook and widget under the versions of colab-constraints.txt, in .venv-colab (needs Python 3.13)
# make notebooks    after editing: badges from settings.ini, ruff, run every notebook and keep its outputs, export, clean
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
COLAB_PYTHON ?= python3.13
BIN := $(VENV)/bin
# one thread a process: the processes share the cores
ONE := OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH"

.PHONY: quickstart test lab notebooks docs colab
quickstart: $(VENV)/.installed
	$(BIN)/toon2real quickstart

test: $(VENV)/.dev
	$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . || { echo "make notebooks formats; ruff check . says what it cannot mend"; exit 1; }
	$(ONE) $(BIN)/nbdev_test --n_workers 2
	$(ONE) $(BIN)/python -m pytest -n 2 --dist loadfile

lab: $(VENV)/.installed
	$(BIN)/jupyter lab nbs

docs: $(VENV)/.installed
	$(BIN)/pip install --quiet $(PIP_ARGS) -e '.[docs]'
	$(BIN)/mkdocs build --quiet
	@echo "open _docs/index.html"

colab: $(VENV)/.dev .venv-colab/.installed
	$(BIN)/python bench/colab.py --python .venv-colab/bin/python
	$(BIN)/python bench/colab.py --python .venv-colab/bin/python --widgets

notebooks: $(VENV)/.dev
	$(BIN)/python nbs/_badges.py
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	cd nbs && for n in *.ipynb tutorials/*.ipynb; do $(ONE) jupyter nbconvert --to notebook --execute --ExecutePreprocessor.store_widget_state=False --inplace "$$n" || exit 1; done
	$(BIN)/python nbs/_badges.py && $(BIN)/nbdev-export && $(BIN)/nbdev-clean

$(VENV)/.installed: settings.ini setup.py pyproject.toml
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f'Python 3.11 or newer is needed, {v.major}.{v.minor} found: make PYTHON=/path/to/python3.11')"
	@echo "Installing into $(VENV). torch with its CUDA libraries takes 5.4 GB of disk; for the CPU build alone (1 GB), first run"
	@echo "  $(PYTHON) -m venv $(VENV), install torch and torchvision into it as the selector on pytorch.org says for CPU, then make again."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) -e '.[lab]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet $(PIP_ARGS) -e '.[dev]'
	@touch $@

.venv-colab/.installed: settings.ini setup.py pyproject.toml colab-constraints.txt
	@$(COLAB_PYTHON) --version > /dev/null || { echo "Python 3.13 is needed: make colab COLAB_PYTHON=/path/to/python3.13"; exit 1; }
	$(COLAB_PYTHON) -m venv .venv-colab
	.venv-colab/bin/pip install --quiet $(PIP_ARGS) -c colab-constraints.txt -e . torchvision notebook ipykernel ipython
	@touch $@
