# Everything a person or CI runs. `make demo` and `make test` need nothing but Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEB_STAMP := tools/web/node_modules/.installed
SOURCES := client gateway gpu_worker tests bench recipe

.PHONY: help install demo run test check check-page format bench chaos soak lock audit vendor clean

help:
	@echo "make demo     install everything and generate three images (demo-1.png ...)"
	@echo "make run      run the service in the foreground, http://127.0.0.1:9090"
	@echo "make test     run every test"
	@echo "make check    check format, lint and types, then run every test"
	@echo "make bench    print the figures in docs/"
	@echo "make chaos    kill processes at random, hundreds of times, and count lost jobs"
	@echo "make soak     mixed load, kills, full disks and bad input for 30 minutes, with a tally"
	@echo "make lock     write requirements.lock (hashes) and docs/dependencies.md (licences)"
	@echo "make audit    ask the advisory database for known faults of the dependencies"
	@echo "make install  install into .venv only"
	@echo "make vendor   bundle the libraries of the page again (needs Node.js and npm)"

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
	$(MAKE) audit
	$(MAKE) check-page
	$(MAKE) test

# The types in the page's comments. Users and `make test` need no Node.js; CI does.
check-page:
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(WEB_STAMP) && cd tools/web && npm run --silent types; \
	elif [ -n "$$CI" ]; then \
		echo "The types of the page are checked with Node.js 20 or newer and npm, and CI needs both." >&2; exit 1; \
	else \
		echo "The types of the page were not checked: that needs Node.js 20 or newer and npm."; \
	fi

$(WEB_STAMP): tools/web/package.json tools/web/package-lock.json
	cd tools/web && npm ci --silent
	@touch $@

vendor: $(WEB_STAMP)
	cd tools/web && npm run --silent vendor

# The lock leaves torch out: its build depends on the machine.
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml client/pyproject.toml --extra gateway --extra worker -c constraints.txt \
		--generate-hashes --no-header --no-annotate --no-emit-package torch --quiet -o requirements.lock
	$(BIN)/python -m tests.support.licenses

audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit || echo "audit: pip-audit cannot be installed"
	$(BIN)/python -m tests.support.audit

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.log
	$(BIN)/python -m bench.deletions
	$(BIN)/python -m bench.gallery
	$(BIN)/python -m bench.service
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.previews
	$(BIN)/python -m bench.quantization

chaos: $(STAMP)
	$(BIN)/python -m tests.support.chaos

soak: $(STAMP)
	$(BIN)/python -m tests.support.soak

clean:
	rm -rf $(VENV) *.egg-info client/*.egg-info build client/build .mypy_cache .ruff_cache .pytest_cache
