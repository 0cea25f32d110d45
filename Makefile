# The daily life of the project. `make demo` and `make test` need Python 3.11 and make, nothing else.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# What the environment was installed from: it is made again when one of these changes.
STAMP := $(VENV)/.installed

.PHONY: demo test lint format docs leaderboards tables site check performance test-slow test-gpu \
	gpu-figures clean

## Install, run RadCLIP on covid-ct, print the leaderboard.
demo: $(STAMP)
	$(BIN)/medbench run --model radclip --task covid-ct
	$(BIN)/medbench leaderboard build --local --output build/leaderboards --print

## Install and run the tests.
test: $(STAMP)
	$(BIN)/ruff check benchmark plugins tasks tests
	$(BIN)/ruff format --check benchmark plugins tasks tests
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

## Rewrite what is generated: schemas, the command reference, the picture of the phantoms.
docs: $(STAMP)
	$(BIN)/python -m medbench.schemas.publish docs/schemas
	$(BIN)/python -m medbench.cli.reference docs/cli.md
	$(BIN)/python -m medbench.testing.reference docs/capabilities.md
	$(BIN)/medbench data gallery --output docs/phantoms.png

lint: $(STAMP)
	$(BIN)/ruff check benchmark plugins tasks tests
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix benchmark plugins tasks tests
	$(BIN)/ruff format benchmark plugins tasks tests

# The committed tables, from a clean checkout, at tiny: covid-ct with three seeds, training on drawn
# images with two or three, all else with one;
# classification and segmentation at three fractions of the labels.
VARIANTS := radclip radclip@mean-pooling radclip@max-pooling radclip@mean-head radclip@clip radclip@no-base
ENCODERS := cls-clip adaptor radclip open-clip
FIELD := cls-clip cls-clip@adapters cls-clip@supervised cls-clip@clip cls-clip@random adaptor radclip

## Run everything that the committed tables hold, and write them.
leaderboards: $(STAMP)
	$(BIN)/medbench run $(addprefix -m ,$(VARIANTS)) -t covid-ct --preset tiny \
		--device cpu --seed 0 --seed 1 --seed 2 --output build/leaderboard-runs
	$(BIN)/medbench run -m radclip -m radclip@mean-head -m radclip@mean-pooling -m radclip@clip -t covid-ct --preset tiny \
		--device cpu --adaptation zero-shot --seed 0 --seed 1 --seed 2 --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m ,$(FIELD)) -t rsna -t chexpert -t rsna-segmentation --preset tiny \
		--device cpu --fraction 0.01 --fraction 0.1 --fraction 1.0 --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m ,$(ENCODERS)) -t nih-14 -t mimic-cxr-14 -t chexpert-5x200 -t covidx \
		-t crystal-clean -t siim-segmentation --preset tiny --device cpu \
		--fraction 0.01 --fraction 0.1 --fraction 1.0 --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m ,$(ENCODERS)) -m cls-clip@clip -t iu-xray-retrieval -t mimic-5x200-retrieval \
		-t crystal-clean-matching --preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m ,$(ENCODERS)) -t iu-xray-report --preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m ,$(ENCODERS)) -t rsna -t chexpert -t covidx --protocol paper-compat \
		--preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m unicrossadapter,@no-adapters @image-adapters @text-adapters @random-clip @no-interaction) -m unicrossadapter \
		-t iu-xray-report --preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run $(addprefix -m roentgen,@base @unconditional @unet @text-encoder @domain-encoder) -m roentgen -m cls-clip \
		-t mimic-cxr-generation --preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run -m roentgen -m roentgen@base -t mimic-cxr-text-probe --preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run -m roentgen -t generation-augmentation -t generation-synthetic-only --seed 0 --seed 1 --seed 2 \
		--preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run -m roentgen -t generation-augmentation-half -t generation-augmentation-x2 -t generation-synthetic-only-x2 \
		-t generation-synthetic-only-x4 --seed 0 --seed 1 --preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench run -m roentgen@base -m baseline@real-only -t generation-augmentation --seed 0 --seed 1 --seed 2 \
		--preset tiny --device cpu --output build/leaderboard-runs
	$(BIN)/medbench leaderboard build --runs build/leaderboard-runs --publish --site leaderboards/site

## Check that the committed tables follow from the committed records, and that the pages are theirs.
check: $(STAMP)
	$(BIN)/medbench leaderboard check

## Write the committed tables and their pages anew from the committed records.
tables site: $(STAMP)
	$(BIN)/medbench leaderboard build --site leaderboards/site

## Timings, as ratios in one run.
performance: $(STAMP)
	$(BIN)/python -m pytest -m performance -s

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

## Throughput, training steps and sampling of every model, beside the ceiling of the same run.
gpu-figures: $(STAMP)
	$(BIN)/python tests/performance/gpu.py

clean:
	rm -rf $(VENV) build dist
