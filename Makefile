# Thin: every target is one call of `nlcourse` or pytest, so that Windows and conda users can make the
# same calls without make (see README.md).

PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
# Inside the environment it speaks of: who deletes .venv gets a new set-up.
STAMP := $(VENV)/.set-up
ARGS ?=

.DEFAULT_GOAL := lab
.PHONY: lab test check notebooks bench clean

lab: $(STAMP)  ## copy the lessons into work/ once and open JupyterLab
	@"$(BIN)/nlcourse" lab -- $(ARGS)

test: $(STAMP)  ## all tests
	@"$(BIN)/python" -m pytest $(ARGS)

check: $(STAMP)  ## check the exercises of one lesson: make check LESSON=07
	@test -n "$(LESSON)" || { echo "Which lesson? For example: make check LESSON=07"; exit 2; }
	@"$(BIN)/nlcourse" check "$(LESSON)" $(ARGS)

notebooks: $(STAMP)  ## build the notebooks whose lessons changed
	@"$(BIN)/nlcourse" notebooks $(ARGS)

bench: $(STAMP)  ## run the benchmarks
	@"$(BIN)/nlcourse" bench $(ARGS)

clean:  ## remove caches; work/, data/ and .venv stay
	@if test -x "$(BIN)/nlcourse"; then "$(BIN)/nlcourse" clean; \
	else echo "Nothing to clean: there is no $(VENV) yet."; fi

$(STAMP): requirements.txt pyproject.toml
	@if ! "$(BIN)/python" -m pip --version >/dev/null 2>&1; then \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "The course needs Python 3.11 or newer; $(PYTHON) is no such Python."; \
	    echo "Install one, or name it: make lab PYTHON=python3.12"; exit 1; }; \
	  "$(PYTHON)" -m venv $(VENV) || { \
	    echo "$(PYTHON) could not make $(VENV). On Debian and Ubuntu: apt install python3-venv"; \
	    exit 1; }; \
	fi
	@"$(BIN)/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(VENV) holds a Python older than 3.11: remove it, then make again."; exit 1; }
	"$(BIN)/python" -m pip install --disable-pip-version-check -r requirements.txt
	"$(BIN)/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)
