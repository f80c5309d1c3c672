# Every frequent task is one command; `make help` lists the commands.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TESTBED := e2e/testbed/testbed
CRD := crds/contour.slipway.dev_contourdeployments.yaml
REFERENCE := docs/reference.md
KUBECTL ?= kubectl
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The folder of the binaries: .cargo/config.toml names the target, so that one build serves the tests and the images.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
BIN = $(TARGET)/$(HOST)/debug

# `--workspace` selects the features of all packages, so that every command uses the same artifacts.
BUILD := e2e/step "build the binaries" cargo build --locked --workspace

##@ Daily work

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: ## Demonstrate Slipway on a real cluster (installs everything needed; STOCK=0 skips stock Contour, RUNS=n repeats the measurement)
	@$(MAKE) --no-print-directory --jobs=2 demo-binaries testbed
	$(BIN)/demo

# The testbed is installed while the compiler works: downloads wait for the network, and crates wait for one another.
.PHONY: demo-binaries testbed
demo-binaries:
	@$(BUILD) --bin demo --bin slipway --bin ext-authz
testbed:
	@e2e/step "install the testbed" $(TESTBED) install

.PHONY: test
test: ## Run all tests: format, lints, generated files, unit, API server, end to end on a real cluster
	@e2e/run-tests

.PHONY: check
check: ## Check only format, lints, generated files and the imports between modules of the core
	@e2e/run-tests format lints generated imports

.PHONY: unit
unit: ## Run only unit and golden tests (no cluster)
	@e2e/run-tests unit

.PHONY: golden
golden: ## Regenerate the golden files of the core; review the difference before you commit it
	GOLDEN=write cargo test --locked -p slipway --test golden

.PHONY: generate
generate: ## Regenerate the CRD and the reference page
	@$(BUILD) --bin slipway
	$(BIN)/slipway crd > $(CRD).new && mv $(CRD).new $(CRD)
	$(BIN)/slipway reference > $(REFERENCE).new && mv $(REFERENCE).new $(REFERENCE)

##@ A cluster for development

.PHONY: cluster
cluster: ## Start a real one-node cluster with Contour's CRDs and Slipway; prints instructions
	@$(BUILD) --bin cluster --bin slipway --bin ext-authz
	$(BIN)/cluster

.PHONY: cluster-down
cluster-down: ## Delete that cluster
	$(TESTBED) down dev

##@ Installation (in the current cluster of kubectl)

.PHONY: deploy
deploy: ## Install Slipway
	$(KUBECTL) apply -k config/default

.PHONY: undeploy
undeploy: ## Uninstall Slipway: delete every ContourDeployment, then the operator and its CRD
	! $(KUBECTL) get crd contourdeployments.contour.slipway.dev --ignore-not-found | grep -q . || \
	$(KUBECTL) delete contourdeployments.contour.slipway.dev --all --all-namespaces --ignore-not-found --timeout=5m
	$(KUBECTL) delete -k config/default --ignore-not-found

.PHONY: build
build: ## Build the static release binary
	cargo build --release --locked -p slipway

##@ Proofs (each writes its rows of docs/proof-results.md; an interrupted proof continues where it stopped)

.PHONY: prove
prove: prove-model prove-drift prove-faults prove-orders prove-flap ## Run all proofs, one after the other

# Results for a commit are reused. A tree with uncommitted changes has no commit, so its search starts from the beginning.
PROVED = $(TARGET)/prove/model-$(shell git describe --always --dirty --abbrev=10)

.PHONY: prove-model
prove-model: ## Search all states of a model for one in which the core does harm or never settles
	@$(BUILD) --bins
	mkdir -p $(TARGET)/prove
	rm -f $(TARGET)/prove/model-*-dirty
	cargo test --release --locked -p slipway --test model -- prove --journal $(PROVED) --ways $(abspath $(TARGET))/prove/model --rows $(abspath $(TARGET))/prove/model.json
	$(BIN)/record prove-model $(TARGET)/prove/model.json

.PHONY: prove-faults
prove-faults: ## Prove that no fault between the operator and the API server has a lasting effect (SEED=n; ONLY=plan repeats one)
	@$(BUILD) --bins
	$(BIN)/prove-faults $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only '$(ONLY)')

.PHONY: prove-drift
prove-drift: ## Prove that Slipway repairs every change to each object and leaves nothing behind (SEED=n ONLY="edge-envoy (Service)")
	@$(BUILD) --bins
	$(BIN)/prove-drift $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

.PHONY: prove-orders
prove-orders: ## Apply the objects in every order on real API servers, some orders with real pods (SEED=n)
	@$(BUILD) --bins
	$(BIN)/prove-orders $(if $(SEED),--seed $(SEED))

.PHONY: prove-flap
prove-flap: ## Prove on a real cluster that a flapping ExtensionService lets no request pass unchecked and breaks nothing (SEED=n)
	@$(BUILD) --bins
	$(BIN)/prove-flap $(if $(SEED),--seed $(SEED))

# Tools of these exact versions, in a directory next to the testbed's cache.
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/slipway-tools
CARGO_MUTANTS := $(TOOLS)/cargo-mutants-27.1.0/bin/cargo-mutants
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-0.13.2/bin/cargo-fuzz

$(TOOLS)/%:
	cargo install --quiet --locked --debug --root $(TOOLS)/$(firstword $(subst /, ,$*)) $(shell sed -E 's/-([0-9.]+)$$/@\1/' <<< '$(firstword $(subst /, ,$*))')

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Test a thousand mutants of the core; the tests must detect each (ONLY=src/plan/usage.rs)
	@$(BUILD) --bins
	$(BIN)/mutants --tool $(CARGO_MUTANTS) $(if $(ONLY),--only $(ONLY))

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## Fuzz the core, ten minutes for each target (SEED=n; ONLY=events REPLAY=file replays a crash)
	@$(BUILD) --bins
	$(BIN)/fuzz --tool $(CARGO_FUZZ) $(if $(SEED),--seed $(SEED)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(REPLAY),--replay $(REPLAY))

##@ Occasional tasks

.PHONY: bench
bench: ## Measure the core (criterion), and reaction time and memory on a real cluster, compared with a bare server-side-apply loop
	cargo bench --locked -p slipway --bench plan
	cargo build --release --locked --workspace --bin bench --bin slipway --bin ext-authz
	$(TARGET)/$(HOST)/release/bench

.PHONY: deny
deny: ## Check licences, sources, bans and advisories of all dependencies (requires cargo-deny and its advisory database)
	cargo deny check
