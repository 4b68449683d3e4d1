# `make` says what there is. What is built or fetched stays below target/ and .cache/; packages come from tests/needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help build images go-tools demo demo-clean test crash-test fault-test space-test quota-test fuzz sanitize conformance bench vm-images vm-test soak demo-vm vm-shell lint clean FORCE

CACHE  := $(CURDIR)/.cache
GO_BIN := $(CACHE)/go/bin
IMAGES := $(CACHE)/images
MODULE := tests/containerd
# One at a time: two at once compile what they share twice.
GO     := flock $(CACHE)/go/lock go
SITE    = $(shell apt-get indextargets --format '$$(SITE) $$(RELEASE)' 'Created-By: Packages' 2>/dev/null | awk '$$2 == "$(SUITE)" { print $$1; exit }')
SUITE   = $(shell . /etc/os-release && echo $${VERSION_CODENAME:-stable})

# Where temporary daemons live: on a disk (in /tmp there may be memory), and short, as a socket's path must be.
export TMPDIR := /var/tmp
# Any Go fetches the toolchain that go.mod asks for; distributions switch that off.
export GOTOOLCHAIN := auto
export CGO_ENABLED := 0

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the three programs, into target/release
	@tests/needs build
	@cargo build --release --locked --bins

demo: build ## a real containerd on ploop chains, shown step by step (CONTAINERD=2: the newest containerd)
	@tests/needs demo
	@$(MAKE) --no-print-directory images go-tools
	@demo/run

demo-clean: ## what an interrupted demo or suite left
	@demo/clean

test: ## everything: Rust tests, containerd's conformance suite, real containerds old and new, ublk in virtual machines
	@tests/needs test
	@tests/needs vm
	@tests/suites all

crash-test: ## every stop at every moment of many scenarios, and deliberate bugs that must be caught (STATES=1000000, SEED=7)
	@tests/needs test
	@tests/suites --here crash

sanitize: ## the library's tests under AddressSanitizer
	@tests/needs test
	@tests/suites sanitized

conformance: ## containerd's own snapshotter suite: over our socket and through containerd
	@tests/needs test
	@tests/suites conformance

fault-test: ## faults of the host under running containers (README, Reliability); here and in the virtual machine (SECONDS=20: of kills)
	@tests/needs test
	@tests/needs vm
	@LOAD=$(or $(SECONDS),20) tests/suites faults clients faults-dm@{old,new}

space-test: ## what is deleted is the host's again: 1 GiB, a day's churn, whole containers; small layers; what discard costs
	@tests/needs test
	@tests/suites space

quota-test: ## sizes: by label and annotation, first and second time, resized, of a running container; users' quota inside one; here and on ublk in the virtual machine
	@tests/needs test
	@tests/needs vm
	@tests/suites quota {quota,user-quota}@{old,new}

fuzz: ## what reads bytes that others wrote, under libFuzzer, a table (TIME=60: seconds for each target)
	@tests/needs fuzz
	@TIME=$(or $(TIME),60) fuzz/run

vm-images: ## kernels and root file system of the virtual machine, once (some 700 MB in .cache/vm)
	@tests/needs vm
	@tests/vm/kernels
	@tests/vm/rootfs >/dev/null

vm-test: ## what the kernel matters to, on ublk, in the virtual machine: on the oldest kernel and on the newest
	@tests/needs test
	@tests/needs vm
	@tests/suites vm

soak: ## millions of crash states; AddressSanitizer; ten minutes of hostile bytes for each reader; then what kills and hurries, in the virtual machine (ROUNDS=50, LOAD=600: seconds under pressure, CUTS=100: of the power)
	@tests/needs test
	@tests/needs vm
	@STATES=$(or $(STATES),5000000) tests/suites crash
	@tests/suites sanitized
	@TIME=$(or $(TIME),600) fuzz/run
	@ROUNDS=$(or $(ROUNDS),50) LOAD=$(or $(LOAD),600) CUTS=$(or $(CUTS),100) VM_LIMIT=14400 tests/suites soak

demo-vm: build ## the demo on ublk, in the virtual machine (KERNEL=old|new, CONTAINERD=1|2)
	@tests/needs demo
	@$(MAKE) --no-print-directory images go-tools vm-images $(GO_BIN)/containerd
	@tests/vm/run $(if $(KERNEL),--kernel $(KERNEL)) --module ublk_drv --timeout 1800 --env CONTAINERD=$(or $(CONTAINERD),1) -- demo/run

vm-shell: vm-images ## a shell in the virtual machine, with what target/release holds (KERNEL=old|new|6.12|...)
	@tests/vm/run --shell $(if $(KERNEL),--kernel $(KERNEL))

bench: vm-images ## ours beside its peers in the virtual machine: a table, and target/bench.json (QUICK=1: a short one; KERNEL=...)
	@tests/needs bench
	@tests/bench/run $(if $(QUICK),--quick) $(if $(KERNEL),--kernel $(KERNEL)) $(if $(PARTS),--parts $(PARTS))

lint: ## formatting, clippy, documentation, dependencies, shell and Go
	@tests/needs lint
	@tests/lint

clean: ## all that was built or fetched
	rm -rf target $(CACHE)

# -- what the suites and the demo stand on ---------------------------------------------------------------------------

# One build of each, from the module that pins containerd.
go-tools: $(GO_BIN)/images $(GO_BIN)/timing $(GO_BIN)/cri $(GO_BIN)/clients $(if $(filter 2,$(CONTAINERD)),$(GO_BIN)/containerd)
	@:

$(GO_BIN)/images $(GO_BIN)/timing $(GO_BIN)/cri $(GO_BIN)/clients: $(GO_BIN)/%: $(MODULE)/go.mod $(MODULE)/go.sum $(wildcard $(MODULE)/*/*.go)
	@mkdir -p $(@D) && cd $(MODULE) && $(GO) build -trimpath -o $@ ./$*

$(GO_BIN)/containerd: $(MODULE)/go.mod $(MODULE)/go.sum $(GO_BIN)/runc
	@echo "building the containerd that $(MODULE)/go.mod pins (a minute or two, once)"
	@mkdir -p $(@D) && cd $(MODULE) && $(GO) build -trimpath -tags 'no_btrfs no_devmapper no_zfs' -o $(GO_BIN)/ \
	  github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
	@touch $@

# Its first steps in a container are C.
$(GO_BIN)/runc: tests/runc/go.mod tests/runc/go.sum
	@mkdir -p $(@D) && cd tests/runc && CGO_ENABLED=1 $(GO) build -trimpath -o $@ github.com/opencontainers/runc
	@touch $@

$(GO_BIN)/conformance.test: $(MODULE)/go.mod $(MODULE)/go.sum $(wildcard $(MODULE)/conformance/*.go)
	@mkdir -p $(@D) && cd $(MODULE) && $(GO) test -c -trimpath -o $@ ./conformance

images: $(IMAGES)/busybox.tar $(IMAGES)/pause.tar $(IMAGES)/deep.tar $(IMAGES)/debian.tar
	@:

$(IMAGES)/busybox.tar $(IMAGES)/pause.tar $(IMAGES)/deep.tar: $(IMAGES)/%.tar: $(GO_BIN)/images
	@mkdir -p $(@D)
	@$(GO_BIN)/images $* --name example.invalid/$*:1 --out $@

$(IMAGES)/debian.tar: $(GO_BIN)/images $(IMAGES)/minbase.tar
	@$(GO_BIN)/images debian --minbase $(IMAGES)/minbase.tar --name example.invalid/debian:1 --out $@

# The tree comes from the mirror that this machine's apt uses.
$(IMAGES)/minbase.tar:
	@mkdir -p $(@D)
	@echo "making a Debian minbase (a minute, once)"
	@SOURCE_DATE_EPOCH=1700000000 mmdebstrap --quiet --variant=minbase --format=tar \
	  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	  $(SUITE) $@.new "deb $(SITE) $(SUITE) main"
	@mv $@.new $@
