# What a newcomer and CI call. Everything is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
DEMO := build/demo
SECONDS := 20

.PHONY: demo test quick lint format docs site bench bench-scale samples fuzz trust mutants coverage audit oldest clean

## demo: the tool on a real network: table, picture, failing check
demo: .venv/core
	@mkdir -p $(DEMO)
	@echo "\n== A real int8 network, layer by layer: qdebug report sample_models/digits.npz\n"
	@$(BIN)/qdebug report sample_models/digits.npz
	@echo "\n== Its worst layer, drawn: qdebug plot LAYER -m sample_models/digits.npz\n"
	@worst="$$($(BIN)/qdebug report sample_models/digits.npz --sort rmse_scale_ratio --top 1 \
	    --columns layer --format csv | tail -n 1)"; \
	  $(BIN)/qdebug plot "$$worst" -m sample_models/digits.npz -o $(DEMO)/worst.png
	@echo "\n== The same network with planted faults: qdebug check sample_models/digits_faulty.npz\n"
	@$(BIN)/qdebug check sample_models/digits_faulty.npz; status=$$?; \
	  echo "exit status $$status"; test $$status -eq 1

## test: all tests, on two cores
test: .venv/dev
	$(BIN)/pytest -n 2 --dist loadfile

## quick: the inner loop, without slow tests and live models
quick: .venv/dev
	$(BIN)/pytest -n 2 -m "not slow" tests --ignore tests/sources/onnx --ignore tests/sources/tflite

## lint: formatting, lint and types
lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

## format: put right what can be put right by itself
format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## docs: docs/cli.md and the README's table from the program itself
docs: .venv/dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/screenshots.py

## site: the documentation as a site, in build/site
site: .venv/dev
	$(BIN)/mkdocs build

## bench: time and memory beside other tools: docs/performance.md anew (6 minutes, 3 GB in build)
bench: .venv/bench
	$(BIN)/python benchmarks/run.py

## bench-scale: reports on a cluster of two processes here: docs/scale.md anew (6 minutes, 1 GB in build)
bench-scale: .venv/dev
	$(BIN)/python benchmarks/scale.py

## fuzz: every reader on damaged files, 20 s each: make fuzz SECONDS=600 for more
fuzz: .venv/fuzz
	$(BIN)/python -m fuzz --seconds $(SECONDS)

## trust: everything hostile, and how it ended: the tables of docs/security.md anew
trust: .venv/dev
	$(BIN)/python -m tests.hostile

## mutants: faults planted in the arithmetic, and which of them no test notices (an hour or two)
mutants: .venv/dev
	$(BIN)/python -m tests.mutation $(TARGET)

## coverage: the share of lines and branches that the tests without slow ones run
coverage: .venv/dev
	@mkdir -p build
	$(BIN)/pip install --quiet coverage
	$(BIN)/coverage run --branch --source qdebug --data-file build/coverage \
	    -m pytest -p no:xdist -m "not slow" tests
	$(BIN)/coverage report --data-file build/coverage --skip-covered --show-missing

## audit: known vulnerabilities of what qdebug and its extras install
audit: .venv/dev
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

## oldest: the quick tests with the oldest versions that pyproject.toml allows, in a .venv of its own
oldest:
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --constraint .venv-oldest/constraints.txt \
	    --editable '.[all]' pytest pytest-xdist hypothesis aiohttp junitparser pyyaml
	.venv-oldest/bin/pytest -n 2 -m "not slow" -W ignore::DeprecationWarning tests

## samples: train, convert and measure sample_models/ again (TensorFlow, in a .venv of its own)
samples: .venv-samples/done
	.venv-samples/bin/python sample_models/make_samples.py

clean:
	rm -rf .venv .venv-samples .venv-oldest build dist qdebug/measure/kernel/kernel.so .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Installing compiles the kernel, if there is a C compiler.
.venv/core: pyproject.toml qdebug/measure/kernel/kernel.c
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/dev: .venv/core
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

.venv/bench: .venv/dev
	$(BIN)/pip install --quiet zlib-ng
	@touch $@

.venv/fuzz: .venv/dev
	$(BIN)/pip install --quiet atheris==3.0.0
	@touch $@

.venv-samples/done:
	$(PYTHON) -m venv .venv-samples
	.venv-samples/bin/pip install --quiet --editable '.[litert]' \
	    tensorflow-cpu==2.21.0 ai-edge-litert==2.3.0 scikit-learn==1.9.1
	@touch $@
