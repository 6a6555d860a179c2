# One target a habit, the same at hand and in CI. `make` alone lists them.
#
#   PYTHON=python3.13 make venv    use this interpreter (3.11 or newer) instead of the first one found
#   make test ARGS="-k queue"      hand arguments to pytest
#   make bench BENCH=runs ARGS="--samples 500"   one benchmark, with arguments

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv demo test lint types rust arm fuzz miri package check terraform image e2e chaos kills soak bench figures onnx models docs wheel screenshot constraints lock clean

# rustup's folder, for shells that were opened before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

VENV := .venv
BENCH := *
TARGET := answers block frame inbox packed rank weights
SECONDS_EACH := 60
# Tests that Miri can run in a minute: without zstd and rayon, and of few values.
MIRI_TESTS := activations::tests::narrow codec::bits codec::wire digest::tests::the_hash frame::tests::a_ \
  frame::tests::damage frame::tests::runs frame::tests::strange inbox serial::transpose
# One more than there are processors: many tests wait, for clocks and for processes that start.
TEST_WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
BIN := $(VENV)/bin
ifdef PYTHON
CANDIDATES := $(PYTHON)
else
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
endif
# What an interpreter must pass: recent enough, and able to make an environment (Debian ships those modules apart).
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

EXTENSION := python/fsd_inference/_kernels.abi3.so
RUST := Cargo.toml Cargo.lock $(shell find rust_kernels -name '*.rs' -o -name Cargo.toml)
# clippy and maturin build pyo3 for the same interpreter.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# Ranks and functions are processes: each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
# Several times as quick as pip; certificates are the system's, as pip's are.
INSTALL := uv --system-certs pip install --quiet
# So that programs in the environment find it and each other.
IN_VENV := VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH

help:
	@echo "make demo     1024 x 120 network, real digits, 4 workers, over an emulated AWS (installs all it needs)"
	@echo "make test     all Python tests but those of make e2e"
	@echo "make check    all that CI runs: lint, types, rust, package, test"
	@echo "make lint     formatting, ruff, clippy, which room may import which"
	@echo "make types    mypy, and the extension against its stub"
	@echo "make rust     Rust tests, once for each kernel path that this processor has"
	@echo "make arm      Rust tests for 64-bit Arm, in QEMU's emulation (needs a cross compiler and QEMU; not in CI)"
	@echo "make fuzz     all Rust decoders, a minute each (TARGET=block for one, SECONDS_EACH=600, ARGS=\"--sanitizer none\"; needs a nightly Rust and cargo-fuzz)"
	@echo "make miri     unsafe Rust code in Miri, as far as that runs it (needs a nightly Rust with miri and rust-src; not in CI)"
	@echo "make package  the wheel, installed alone into an environment of its own"
	@echo "make terraform checkov over the Terraform module (its tests are among make test and make e2e)"
	@echo "make image    the Lambda image, over Debian and without a Docker daemon (docker/build)"
	@echo "make e2e      the deployment: terraform, image, functions and Terraform on an emulated AWS; PyTorch; and long tests"
	@echo "make chaos    200 seeded schedules of faults over processes, 24 over functions, and what became of each (half an hour)"
	@echo "make kills    SIGKILL of each rank at each tenth of a run, over each channel (a quarter of an hour)"
	@echo "make soak     two programs that run inference for 15 minutes, watched for leaks"
	@echo "make bench    benchmarks: activations, codec, digests, import, kernel, lanes, loading, memory, overlap, partition, predictions, pruned, quotas, releases, runs, services, simulation, starting, wire (BENCH=runs for one)"
	@echo "make figures  the tables and figures of docs/comparisons.md (the first time, cutting takes over an hour)"
	@echo "make onnx     docs/onnx-operators.md: the ONNX operators that are imported, tried on the test cases of onnx"
	@echo "make models   docs/published-models.md: published ONNX models, imported, checked and run over an emulated AWS"
	@echo "make docs     the documentation site in .work/site, each page tried in a browser (needs npm and chromium)"
	@echo "make wheel    dist/*.whl"
	@echo "make screenshot  docs/report.png: the page of a run made here (needs chromium)"
	@echo "make constraints  pin the newest versions of what .venv installs"
	@echo "make lock     pin the libraries of the Lambda functions, by hash, at the versions of constraints.txt"
	@echo "make venv     .venv with the project (editable) and its test tools"
	@echo "make clean    remove what the targets made"

# --- environments -----------------------------------------------------------------------------------------------------

$(VENV)/.tools:
	@command -v cargo >/dev/null || { \
	  echo "make: no cargo on PATH; install Rust 1.89 or newer (with rustup) and run make again" >&2; exit 1; }
	@for python in $(CANDIDATES); do \
	  if $$python -c '$(USABLE)' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$python --version) ($$(command -v $$python))"; \
	    $$python -m venv --clear $(VENV); \
	    $(BIN)/python -m pip install --quiet --constraint constraints.txt maturin uv; \
	    touch $@; exit 0; \
	  fi; \
	done; \
	echo "make: no usable Python among: $(CANDIDATES); install Python 3.11 or newer with its venv module" \
	  "(Debian: python3-venv), or name one with PYTHON=..." >&2; exit 1

# In release profile, as it is shipped: the first build takes a minute or two.
$(EXTENSION): $(VENV)/.tools pyproject.toml $(RUST)
	$(IN_VENV) maturin develop --release --skip-install
	@touch $@

$(VENV)/.local $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: $(EXTENSION) pyproject.toml constraints.txt
	$(IN_VENV) $(INSTALL) --no-build-isolation --constraint constraints.txt --editable '.[$*]'
	@touch $(EXTENSION) $@

venv: $(VENV)/.test

# --- habits -----------------------------------------------------------------------------------------------------------

demo: $(VENV)/.local
	$(BIN)/fsd demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder \
	  -m "not image and not functions and not deploys and not frameworks and not long" $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

types: $(VENV)/.test
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml fsd_inference._kernels

rust: $(VENV)/.test
	cargo test --locked --release --quiet --package fsd-services --package fsd-fuzz
	@paths=$$($(BIN)/python -c 'from fsd_inference import kernels; print(*kernels.simd_paths())'); \
	for path in $$paths; do \
	  echo "kernel path $$path"; \
	  FSD_KERNEL=$$path cargo test --locked --release --quiet --package fsd-core; \
	done; \
	for path in portable avx2 avx512 neon; do \
	  [[ " $$paths " == *" $$path "* ]] || echo "NOT TESTED: kernel path $$path, which this processor lacks"; \
	done

arm:
	tests/arm

# What reaches something new is kept in .work/fuzz between runs; what fails is written to rust_kernels/fuzz/artifacts.
fuzz:
	@command -v cargo-fuzz >/dev/null || { echo "make: no cargo-fuzz; run cargo install cargo-fuzz" >&2; exit 1; }
	cargo run --locked --release --quiet --package fsd-fuzz --example seeds .work/fuzz/seeds
	@for target in $(TARGET); do \
	  echo "== $$target"; mkdir -p .work/fuzz/found/$$target; \
	  cargo +nightly fuzz run $(ARGS) --fuzz-dir rust_kernels/fuzz --features libfuzzer --target-dir .work/fuzz/target $$target \
	    .work/fuzz/found/$$target .work/fuzz/seeds/$$target rust_kernels/fuzz/corpus/$$target -- \
	    -max_total_time=$(SECONDS_EACH) -max_len=4096 -timeout=5 -malloc_limit_mb=512 -verbosity=0 -print_final_stats=1; \
	done

miri: export MIRIFLAGS := -Zmiri-disable-isolation -Zmiri-deterministic-floats
miri: export PROPTEST_CASES := 1
miri:
	cargo +nightly miri test --locked --quiet --target-dir .work/miri --package fsd-core --lib -- $(MIRI_TESTS)
	cargo +nightly miri test --locked --quiet --target-dir .work/miri --package fsd-core --test spmm --test few -- small_

wheel: $(VENV)/.tools
	rm -rf dist
	$(IN_VENV) maturin build --release --strip --out dist

# The wheel with nothing but what it asks for: no extras, no source tree.
package: wheel
	rm -rf .work/package
	$(BIN)/python -m venv .work/package
	$(BIN)/$(INSTALL) --python .work/package --constraint constraints.txt dist/fsd_inference-*-cp311-abi3-*.whl
	tests/package .work/package/bin/fsd

check: lint types rust package test

# --- deployment -------------------------------------------------------------------------------------------------------

# Its many dependencies would get in the way of ours.
.work/checkov/.created: terraform/checkov.txt $(VENV)/.tools
	rm -rf .work/checkov
	$(BIN)/python -m venv .work/checkov
	$(BIN)/$(INSTALL) --python .work/checkov --requirement $<
	touch $@

terraform: .work/checkov/.created
	.work/checkov/bin/checkov --directory terraform --framework terraform --compact --quiet --skip-download

image: wheel
	docker/build dist

# PyTorch, with CUDA's libraries, takes 5 GB; functions and ranks must not find it.
.work/frameworks/.created: tests/e2e/frameworks.txt $(VENV)/.tools
	rm -rf .work/frameworks
	$(BIN)/$(INSTALL) --python $(BIN)/python --target .work/frameworks --constraint constraints.txt --requirement $<
	touch $@

e2e: terraform image $(VENV)/.test .work/frameworks/.created
	FSD_IMAGE=localhost/fsd-inference $(BIN)/python -m pytest -n 2 --dist loadfile -m "image or functions or deploys or long" $(ARGS)
	PYTHONPATH=$(CURDIR)/.work/frameworks $(BIN)/python -m pytest -n 2 --dist loadfile -m frameworks $(ARGS)

# --- trust ------------------------------------------------------------------------------------------------------------

chaos: $(VENV)/.test
	$(BIN)/fsd chaos --schedules 200 $(ARGS)
	$(BIN)/fsd chaos --ranks functions --schedules 24 $(ARGS)

kills: $(VENV)/.test
	$(BIN)/fsd chaos --kills $(ARGS)

soak: $(VENV)/.test
	$(BIN)/fsd chaos --soak 15 $(ARGS)

# --- documentation ----------------------------------------------------------------------------------------------------

# What draws the diagrams. npm asks whatever registry it is configured for; the content is known by its hash.
.work/mermaid/package/dist/mermaid.min.js: website/mermaid.sha256
	@command -v npm >/dev/null || { echo "make: no npm; install Node.js with npm to fetch Mermaid" >&2; exit 1; }
	rm -rf .work/mermaid
	mkdir -p .work/mermaid
	cd .work/mermaid && npm pack --silent mermaid@$$(sed 's/.*mermaid-\(.*\)\.tgz/\1/' ../../$<)
	cd .work/mermaid && sha256sum --check --quiet ../../$<
	tar -xzf .work/mermaid/*.tgz --touch -C .work/mermaid package/LICENSE package/dist/mermaid.min.js

# The theme's notice is about MkDocs 2, which the pins rule out.
docs: $(VENV)/.docs .work/mermaid/package/dist/mermaid.min.js
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m website.check .work/site

# --- figures and pins -------------------------------------------------------------------------------------------------

bench: $(VENV)/.test
	@for script in tests/bench/bench_$(BENCH).py; do \
	  echo "== $$script"; $(BIN)/python -m tests.bench.$$(basename $$script .py) $(ARGS); \
	done

figures: $(VENV)/.test
	$(BIN)/python -m tests.bench.comparisons $(ARGS)

onnx: $(VENV)/.test
	$(BIN)/python -m tests.conformance.onnx_operators $(ARGS)

models: $(VENV)/.test
	$(BIN)/python -m tests.conformance.published_models $(ARGS)

# A run over the emulated AWS, and its page as a browser shows it, in few colours.
screenshot: $(VENV)/.test
	@command -v chromium >/dev/null || { echo "make: no chromium; install Debian's package chromium" >&2; exit 1; }
	rm -rf .work/screenshot
	mkdir -p .work/screenshot
	cd .work/screenshot && ../../$(BIN)/fsd network generate radixnet --neurons 1024 --layers 24 -o net
	cd .work/screenshot && ../../$(BIN)/fsd dataset digits --neurons 1024 --samples 2000 -o digits.npz
	cd .work/screenshot && ../../$(BIN)/fsd infer net digits.npz -o out.npz --channel queue --workers 6 --report run
	chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
	  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir=.work/screenshot/chromium \
	  --blink-settings=preferredColorScheme=1 --window-size=1080,1840 --screenshot=.work/screenshot/report.png \
	  file://$(CURDIR)/.work/screenshot/run/report.html
	$(BIN)/python -c 'from PIL import Image; \
	  Image.open(".work/screenshot/report.png").convert("RGB").quantize(256).save("docs/report.png", optimize=True)'

# The newest versions that fit together. The name of the project itself is left out.
constraints: wheel
	rm -rf .work/constraints
	$(BIN)/python -m venv .work/constraints
	.work/constraints/bin/python -m pip install --quiet --upgrade pip
	.work/constraints/bin/python -m pip install --quiet maturin uv "$$(echo dist/fsd_inference-*.whl)[test,docs]"
	{ head -1 constraints.txt; .work/constraints/bin/python -m pip freeze | grep -v '^fsd-inference'; } > .work/constraints.txt
	mv .work/constraints.txt constraints.txt

# The oldest Python asks for the most; hashes are of all wheels of a version, for every Python and architecture.
lock:
	rm -rf .work/lock
	python3 -m venv .work/lock
	.work/lock/bin/python -m pip install --quiet uv
	.work/lock/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade \
	  --constraint constraints.txt docker/requirements.in --output-file python/fsd_inference/aws/package/requirements.txt

clean:
	rm -rf $(VENV) $(EXTENSION) .work dist target .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
