# Two commands: `make demo` and `make test`. Both create or reuse .venv and install what they need.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# Processes that run the tests, one torch thread each.
WORKERS ?= 2

# The environment is installed without bytecode (below), so whoever imports a module first must be allowed to write it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test bench clean
.NOTPARALLEL:

demo: $(STAMP)
	"$(VENV)/bin/spikeloom" demo

test: $(VENV)/.installed-dev
	"$(VENV)/bin/ruff" check .
	@# Types take one core for minutes, so they are checked beside the tests and told after them.
	"$(VENV)/bin/mypy" > "$(VENV)/mypy.txt" 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 "$(VENV)/bin/pytest" -n $(WORKERS) --dist loadfile -m "not slow"; tests=$$?; \
	wait $$types; types=$$?; cat "$(VENV)/mypy.txt"; \
	test $$tests -eq 0 && test $$types -eq 0

bench: $(STAMP)
	"$(VENV)/bin/spikeloom" bench ops
	"$(VENV)/bin/spikeloom" bench step
	"$(VENV)/bin/spikeloom" bench loader
	"$(VENV)/bin/spikeloom" bench cochlea
	"$(VENV)/bin/spikeloom" bench env

clean:
	rm -rf "$(VENV)" runs

# Compiling every module of every dependency takes longer than the few that are ever imported.
$(STAMP): pyproject.toml
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --no-compile -e .
	touch "$@"

# The dev extra brings the plain install along: one step, and `make demo` afterwards finds it done.
$(VENV)/.installed-dev: pyproject.toml
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --no-compile -e ".[dev]"
	touch "$(STAMP)" "$@"
