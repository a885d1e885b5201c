# Everything a person or CI runs. `make demo` and `make test` need nothing but Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := client gateway gpu_worker tests bench

.PHONY: help install demo run test check format bench chaos clean

help:
	@echo "make demo     install everything and generate an image (demo.png)"
	@echo "make run      run the service in the foreground, http://127.0.0.1:9090"
	@echo "make test     run every test"
	@echo "make check    check format, lint and types, then run every test"
	@echo "make bench    print the figures in docs/"
	@echo "make chaos    kill processes at random, hundreds of times, and count lost jobs"
	@echo "make install  install into .venv only"

install: $(STAMP)

# spandrel comes without its torchvision, which ESRGANs do not need and which wants the very torch
# that it was built with.
$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gateway,worker,test]' -e ./client
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps spandrel
	@touch $@

demo: $(STAMP)
	@./demo.sh

run: $(STAMP)
	@./run.sh

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.log
	$(BIN)/python -m bench.deletions
	$(BIN)/python -m bench.service
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.previews
	$(BIN)/python -m bench.demo_model
	$(BIN)/python -m bench.quantization

chaos: $(STAMP)
	$(BIN)/python -m tests.support.chaos

clean:
	rm -rf $(VENV) *.egg-info client/*.egg-info build client/build .mypy_cache .ruff_cache .pytest_cache
