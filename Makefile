# `make demo`, `make test` and `make check` create or reuse .venv and install what they need.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# Processes that run the tests, one torch thread each.
WORKERS ?= 2
# The commit that `make check` compares with to find the changed files.
BASE ?= HEAD
# mypy needs the modules under the names they are imported by: spikeloom.accel for the folder accel, and so on.
TREE := $(VENV)/tree/spikeloom
PACKAGES := accel bci benchmarks conf examples pipelines speech vision
# Tests of every package that together take seconds.
FAST := tests/test_architecture.py $(addprefix tests/accel/spiking/test_, ops.py surrogate.py attention.py norm_dropout.py) \
	$(addprefix tests/accel/trainer/test_, chip.py cost.py crossbar.py partition.py) tests/speech/test_event_bins.py \
	tests/bci/evaluation/test_retrieval_and_controls.py tests/vision/test_norm.py

# The environment is installed without bytecode (below), so whoever imports a module first must be allowed to write it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check fuzz types types-tree bench docs dist lock sbom clean
.NOTPARALLEL:

demo: $(STAMP)
	"$(VENV)/bin/spikeloom" demo

test: $(VENV)/.installed-dev types-tree
	"$(VENV)/bin/ruff" check .
	@# Types take one core for minutes, so they are checked beside the tests and printed after them.
	"$(VENV)/bin/mypy" > "$(VENV)/mypy.txt" 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 "$(VENV)/bin/pytest" -n $(WORKERS) --dist loadfile -m "not slow"; tests=$$?; \
	wait $$types; types=$$?; cat "$(VENV)/mypy.txt"; \
	test $$tests -eq 0 && test $$types -eq 0

# Before a commit, within a minute: lint, format, types of the files changed since $(BASE), and the fast tests.
check: $(VENV)/.installed-dev
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check --quiet .
	@# Types take one core, so they are checked beside the tests and printed after them.
	@"$(MAKE)" --no-print-directory types > "$(VENV)/types.txt" 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 "$(VENV)/bin/pytest" -m "not slow" --durations=3 $(FAST); tests=$$?; \
	wait $$types; types=$$?; cat "$(VENV)/types.txt"; \
	test $$tests -eq 0 && test $$types -eq 0

types: types-tree
	@changed=$$( (git diff --name-only --diff-filter=d "$(BASE)" -- '*.py'; git ls-files -o --exclude-standard '*.py') \
		| grep -vE '^(tests/|setup\.py)' | sort -u); \
	if [ -z "$$changed" ]; then echo "types: no module changed since $(BASE)"; exit 0; fi; \
	for file in $$changed; do case $$file in spikeloom/*) echo "$(VENV)/tree/$$file";; *) echo "$(TREE)/$$file";; esac; done \
	| xargs "$(VENV)/bin/mypy" --follow-imports=silent

types-tree:
	@rm -rf "$(VENV)/tree" && mkdir -p "$(TREE)"
	@ln -s $(foreach name,$(PACKAGES) $(wildcard spikeloom/*.py) spikeloom/py.typed,"$(CURDIR)/$(name)") "$(TREE)/"

bench: $(STAMP)
	"$(VENV)/bin/spikeloom" bench ops
	"$(VENV)/bin/spikeloom" bench kernels repeats=8
	"$(VENV)/bin/spikeloom" bench step
	"$(VENV)/bin/spikeloom" bench loader
	"$(VENV)/bin/spikeloom" bench cochlea
	"$(VENV)/bin/spikeloom" bench simulator
	"$(VENV)/bin/spikeloom" bench env

# Mutated inputs for every reader of foreign files, for ten minutes; what is found lies in .venv/fuzz. A search led by
# coverage takes a fraction of the time where atheris is installed: `make fuzz FUZZ="seconds=3600 guided=0.3"`.
FUZZ ?= seconds=600
fuzz: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 "$(VENV)/bin/python" -m tests.fuzz.run found="$(VENV)/fuzz" $(FUZZ)

# The manual in build/site: offline, and any warning is an error. Examples run once for each version of their code.
docs: $(VENV)/.installed-docs types-tree
	DISABLE_MKDOCS_2_WARNING=true "$(VENV)/bin/python" -m mkdocs build --strict --quiet
	@echo "-> build/site/index.html"

# The archives of a release in dist/, checked as the package index checks them.
dist: $(VENV)/.installed-dev
	rm -rf dist
	"$(VENV)/bin/python" -m build --no-isolation
	"$(VENV)/bin/python" -m twine check --strict dist/*

clean:
	rm -rf "$(VENV)" build dist *.egg-info runs

# The tested set, file by file as in packaging/lock; where it does not fit, one line says so and pyproject.toml counts.
# Nothing is compiled: compiling every module of every dependency takes longer than the few that are ever imported.
LOCKED := pyproject.toml setup.py packaging/install.py $(wildcard packaging/lock/*.txt)
$(STAMP): $(LOCKED)
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" packaging/install.py
	touch "$@"

$(VENV)/.installed-docs: $(LOCKED)
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" packaging/install.py dev docs
	touch "$(STAMP)" "$(VENV)/.installed-dev" "$@"

# The dev set brings the plain install along: one step, and `make demo` afterwards finds it done.
$(VENV)/.installed-dev: $(LOCKED)
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" packaging/install.py dev
	touch "$(STAMP)" "$@"

# The tested set anew (needs uv): the newest versions that pyproject.toml allows. Test them, then commit the files.
lock:
	"$(VENV)/bin/python" packaging/lock.py

# What is installed, with licences: dist/sbom.json (CycloneDX) and dist/licences.txt.
sbom: $(STAMP)
	"$(VENV)/bin/python" packaging/sbom.py dist
