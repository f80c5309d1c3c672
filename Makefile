# Everything that a person does often is one command; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TESTBED := e2e/testbed/testbed
CRD := crds/contour.slipway.dev_contourdeployments.yaml
REFERENCE := docs/reference.md
KUBECTL ?= kubectl
TARGET := $(or $(CARGO_TARGET_DIR),target)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

# The whole workspace in one go, so that dependencies are compiled once, with the same features for all.
BUILD := cargo build --quiet --locked --workspace --bins

##@ Every day

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: ## Show on a real cluster what Slipway does (sets up everything it needs; STOCK=0 skips the contrast, RUNS=n repeats the measurement)
	$(BUILD)
	$(TARGET)/debug/demo

.PHONY: test
test: ## Run every test: format, lints, generated files, unit, API server, end to end on a real cluster
	@e2e/run-tests

.PHONY: check
check: ## Format, lints, generated files and imports among the modules of the core only
	@e2e/run-tests format lints generated imports

.PHONY: unit
unit: ## Unit and golden tests only (no cluster)
	@e2e/run-tests unit

.PHONY: golden
golden: ## Write the golden files of the core anew; read the difference before you commit it
	GOLDEN=write cargo test --locked -p slipway --test golden

.PHONY: generate
generate: ## Write the generated files anew: the CRD and the reference page
	$(BUILD)
	$(TARGET)/debug/slipway crd > $(CRD).new && mv $(CRD).new $(CRD)
	$(TARGET)/debug/slipway reference > $(REFERENCE).new && mv $(REFERENCE).new $(REFERENCE)

##@ A cluster for daily work

.PHONY: cluster
cluster: ## Boot a real one-node cluster with Contour's CRDs and Slipway installed; prints how to use it
	$(BUILD)
	$(TARGET)/debug/cluster

.PHONY: cluster-down
cluster-down: ## End that cluster
	$(TESTBED) down dev

##@ Installing (into the cluster that kubectl points at)

.PHONY: deploy
deploy: ## Install Slipway
	$(KUBECTL) apply -k config/default

.PHONY: undeploy
undeploy: ## Uninstall Slipway: first every ContourDeployment, then the operator, then its CRD
	! $(KUBECTL) get crd contourdeployments.contour.slipway.dev --ignore-not-found | grep -q . || \
	$(KUBECTL) delete contourdeployments.contour.slipway.dev --all --all-namespaces --ignore-not-found --timeout=5m
	$(KUBECTL) delete -k config/default --ignore-not-found

.PHONY: build
build: ## Build the static release binary
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(HOST) -p slipway

##@ Proofs (each writes its rows of docs/proof.md; an interrupted one goes on where it was)

.PHONY: prove
prove: prove-model prove-drift prove-faults prove-orders prove-flap ## All of them, one after the other

# What was done for a commit is not done again; a changed tree has no name, and starts anew.
PROVED = $(TARGET)/prove/model-$(shell git describe --always --dirty --abbrev=10)

.PHONY: prove-model
prove-model: ## Search every state of a model of the world for one where the core does harm or never comes to rest
	$(BUILD)
	mkdir -p $(TARGET)/prove
	rm -f $(TARGET)/prove/model-*-dirty
	cargo test --release --locked -p slipway --test model -- prove --journal $(PROVED) --ways $(abspath $(TARGET))/prove/model --rows $(abspath $(TARGET))/prove/model.json
	$(TARGET)/debug/record prove-model $(TARGET)/prove/model.json

.PHONY: prove-faults
prove-faults: ## Prove that no fault between the operator and the API server leaves a trace (SEED=n; ONLY=plan does one again)
	$(BUILD)
	SLIPWAY_BIN=$(abspath $(TARGET)/debug/slipway) $(TARGET)/debug/prove-faults $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only '$(ONLY)')

.PHONY: prove-drift
prove-drift: ## Everything that somebody may do to each object, and every way to leave something behind (SEED=n ONLY="edge-envoy (Service)")
	$(BUILD)
	$(TARGET)/debug/prove-drift $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

.PHONY: prove-orders
prove-orders: ## Every order in which things may come, on real API servers; some of them with real pods (SEED=n)
	$(BUILD)
	$(TARGET)/debug/prove-orders $(if $(SEED),--seed $(SEED))

.PHONY: prove-flap
prove-flap: ## An ExtensionService flaps under traffic, on a real cluster: nothing passes unchecked, nothing breaks (SEED=n)
	$(BUILD)
	$(TARGET)/debug/prove-flap $(if $(SEED),--seed $(SEED))

# Tools of these exact versions, beside the testbed's cache.
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/slipway-tools
CARGO_MUTANTS := $(TOOLS)/cargo-mutants-27.1.0/bin/cargo-mutants
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-0.13.2/bin/cargo-fuzz

$(TOOLS)/%:
	cargo install --quiet --locked --debug --root $(TOOLS)/$(firstword $(subst /, ,$*)) $(shell sed -E 's/-([0-9.]+)$$/@\1/' <<< '$(firstword $(subst /, ,$*))')

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Change the core in a thousand ways, one at a time: the tests must notice (ONLY=src/plan/usage.rs)
	$(BUILD)
	$(TARGET)/debug/mutants --tool $(CARGO_MUTANTS) $(if $(ONLY),--only $(ONLY))

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## Fuzz the core, ten minutes for each target (SEED=n; ONLY=events REPLAY=file replays what crashed)
	$(BUILD)
	$(TARGET)/debug/fuzz --tool $(CARGO_FUZZ) $(if $(SEED),--seed $(SEED)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(REPLAY),--replay $(REPLAY))

##@ Now and then

.PHONY: bench
bench: ## Measure: the core (criterion), reaction and memory on a real cluster, beside a bare server-side-apply loop
	cargo bench --locked -p slipway --bench plan
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(HOST) -p slipway -p slipway-e2e --bin bench
	$(TARGET)/$(HOST)/release/bench

.PHONY: deny
deny: ## Check licences, sources, bans and advisories of all dependencies (needs cargo-deny and its advisory database)
	cargo deny check
