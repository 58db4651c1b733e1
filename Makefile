# Two commands: `make demo` and `make test`. Both create or reuse .venv and install what they need.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test bench clean

demo: $(STAMP)
	"$(VENV)/bin/spikeloom" demo

test: $(VENV)/.installed-dev
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/mypy"
	"$(VENV)/bin/pytest" -m "not slow"

bench: $(STAMP)
	"$(VENV)/bin/spikeloom" bench ops
	"$(VENV)/bin/spikeloom" bench step
	"$(VENV)/bin/spikeloom" bench loader
	"$(VENV)/bin/spikeloom" bench cochlea
	"$(VENV)/bin/spikeloom" bench env

clean:
	rm -rf "$(VENV)" runs

# One install at a time: the dev extra stands on the plain install.
$(STAMP): pyproject.toml
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet -e .
	touch "$@"

$(VENV)/.installed-dev: $(STAMP)
	"$(VENV)/bin/python" -m pip install --quiet -e ".[dev]"
	touch "$@"
