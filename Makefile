# make demo       edit two small vision-language models and print the table (TRAIN=1: train first)
# make test       all tests that need no GPU and no download
# make lint       ruff and mypy
# make types      mypy alone
# make bench      the benchmarks; prints ratios measured in one run
# make hostile    damaged and hostile input by the thousand, and a table of what became of it
# make golden     measure every method on the embedded backbones and compare the answers with the kept ones
# make compat     the core tests with other versions of transformers, each in its own environment
# make standing   measure every table of figures in README.md and docs/ again; ARGS=NAME for one of them
# make tables     write these tables from the figures that are committed in docs/figures
# make backbones  retrain the embedded backbones into runs/backbones
# make editors    retrain the embedded editors into runs/editors
# make classifiers  retrain the scope classifiers of MSCKE's tables 2 and 3 into runs/classifiers

BIN := .venv/bin
RECIPE := $(BIN)/python -m easyedit_mm_plugins.recipes
# One thread a process: the models are small, and two processes use two cores better than one.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint types bench hostile golden standing tables backbones editors classifiers clean

.venv/.installed: setup.cfg pyproject.toml requirements/constraints.txt scripts/setup_venv.sh
	@bash scripts/setup_venv.sh

demo: .venv/.installed
	@$(BIN)/easyedit-mm demo $(if $(TRAIN),--train) $(ARGS)

test: .venv/.installed
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: .venv/.installed types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/mypy $(foreach room,core data backbones methods evaluation bridge host,-p easyedit_mm_plugins.$(room))

bench: .venv/.installed
	$(BIN)/python benchmarks/memory.py

# Some 20,000 inputs, 15 minutes on two cores; ARGS="settings --share 0.1" for some of them.
hostile: .venv/.installed
	@$(BIN)/python -m tests.hostile $(ARGS)

compat: .venv/.installed
	@bash scripts/compat.sh $(ARGS)

# Answers and routes of 100 cases of every method, and DualEdit's captions: tests/golden.
golden: .venv/.installed
	@$(BIN)/easyedit-mm compare experiment=golden
	@$(BIN)/easyedit-mm compare experiment=golden-captions
	@$(BIN)/python scripts/golden.py compare runs/golden runs/golden-captions

# Hours; what is measured already is kept. ARGS=--jobs=2 for two at once, ARGS="NAME --cases 4" to try.
standing: .venv/.installed
	@$(BIN)/python -m scripts.figures make $(ARGS)

tables: .venv/.installed
	@$(BIN)/python -m scripts.figures write

# Two at once, one thread each, then the third, which begins with BLIP-2's vision side; about 90
# minutes. A stopped training resumes. With --ship a recipe copies its results into the package.
backbones: .venv/.installed
	$(RECIPE) backbone scenes-blip2 --out runs/backbones & \
	$(RECIPE) backbone scenes-llava --out runs/backbones; wait
	$(RECIPE) backbone scenes-minigpt4 --vision-from runs/backbones/scenes-blip2 --steps 3000 --out runs/backbones

editors: .venv/.installed
	$(RECIPE) mscke --out runs/editors
	$(RECIPE) serac-classifier --out runs/editors
	$(RECIPE) mend --out runs/editors
	$(RECIPE) mscke-mend --out runs/editors
	$(RECIPE) dualedit --out runs/editors
	$(RECIPE) dualedit scenes-llava scenes-blip2 --data scenes-eic --steps 400 --out runs/editors
	$(RECIPE) visedit --out runs/editors

classifiers: .venv/.installed
	$(RECIPE) classifiers --out runs/classifiers

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
