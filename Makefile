# Two targets set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Pinned: a small CPU build is enough, and the same build everywhere keeps results comparable.
TORCH  ?= torch==2.13.0

.PHONY: demo test test-full lint bench clean

$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[encode]"
	touch $@

# Of lpips the heads are read, and its arithmetic is tested: it comes without torchvision.
$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[encode,bench,test]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "lpips>=0.1.4" tqdm
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m sglat.cli.demo demo_output

lint: $(VENV)/.test
	$(BIN)/ruff check codec tests format_spec
	$(BIN)/ruff format --check codec tests format_spec
	$(BIN)/mypy

# Each process starts with one half of the tests, so that tests of one module share its fixtures.
test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The published networks end to end at 256 and 1024 px, on stand-ins of their sizes, and LPIPS and
# insightface with their true packages.
test-full: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "insightface>=0.7.3"
	$(BIN)/python -m pytest tests/networks/test_perceptual.py tests/networks/test_insightface_package.py
	SGLAT_FULL="256 1024" $(BIN)/python -m pytest tests/test_full_size.py

# mediapipe brings an OpenCV that needs a display; the one without goes on top of it.
$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[simulate]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps opencv-python-headless
	touch $@

# Half an hour on two cores; `make bench QUICK=--quick` takes five minutes. CLIPS may be any folder of videos.
CLIPS ?= ../shared/clips
QUICK ?=
bench: $(VENV)/.bench
	$(BIN)/sgl-bench $(CLIPS) --out benchmarks/report $(QUICK)
	cp benchmarks/report/results.json benchmarks/results/RESULTS.json
	PYTHONPATH=codec $(BIN)/python -m sglat_lab.report.pages benchmarks/results

clean:
	rm -rf $(VENV) demo_output benchmarks/report
