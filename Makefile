# What people type. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# grpcnotrace leaves out a debugging page that nothing serves, and with it the
# template packages: 4 MB of the binary.
TAGS := grpcnotrace
LDFLAGS := -s -w -X flannel/internal/version.linked=$(VERSION)
PROGRAMS := flanneld flannel flannel-lab
# The programs name their commit, where git can say it.
BUILDVCS := $(shell git status >/dev/null 2>&1 && echo auto || echo false)
# The modules of this repository, and flags with which the build cache serves
# them all, wherever the module cache is.
MODULES := . dist/pack test/assets test/assets/dns test/assets/plugins test/figures test/helm test/monitoring test/tools
export GOFLAGS := $(GOFLAGS) -buildvcs=false -trimpath
GO_BUILD := CGO_ENABLED=0 go build -buildvcs=$(BUILDVCS) -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)'

# The results of make bench, and its pictures.
FIGURES := Documentation/performance

# Where things go; packaging: for which architectures, under which name, to which place.
ARCHS ?= amd64 arm64 arm ppc64le s390x riscv64
NATIVE ?= $(shell go env GOARCH)
# IPTABLES=1: the image with iptables.
IPTABLES ?=
IMAGE ?= localhost/flanneld:$(VERSION)$(if $(IPTABLES),-iptables)
BIN ?= bin
OUT ?= dist/out
CTR ?= ctr --namespace k8s.io
PREFIX ?= /usr/local
CNIDIR ?= $(PREFIX)/lib/cni
UNITDIR ?= $(PREFIX)/lib/systemd/system
PACK = '$(BIN)/pack' -programs '$(OUT)/bin' -archs '$(ARCHS)' -native '$(NATIVE)' -version '$(VERSION)' -image '$(IMAGE)' \
	$(if $(IPTABLES),-iptables .assets/iptables)

.PHONY: help build demo test test-fast check generate pictures lines bench fleet conformance faults assets deps modules clean pack programs image image-load release install

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the programs into bin/ (BIN)
	$(GO_BUILD) -o '$(BIN)/' $(PROGRAMS:%=./cmd/%) ./lab/testpod
	$(MAKE) pack

# The program that makes images and releases, a module of its own.
pack:
	CGO_ENABLED=0 go build -C dist/pack -o '$(abspath $(BIN))/' .

demo: ## three hosts on this machine: lease, ping, break, heal
	test/deps demo
	$(MAKE) build
	test/assets/build etcd
	bin/flannel-lab demo

test: deps assets ## every test, on the real kernel, etcd and Kubernetes (root)
	test/run

test-fast: deps assets ## the tests without whole clusters, for working
	test/run --fast

check: ## formatting, order of imports, vet and lint of every module
	test/assets/build lint
	test -z "$$(find . -name '.?*' -prune -o -name '*.go' -exec gofmt -l {} + | tee /dev/stderr)"
	for dir in $(MODULES); do \
		(cd "$$dir" && go vet ./... && '$(CURDIR)/.assets/golangci-lint' run) || exit; \
	done

generate: ## compile the eBPF programs of the fast path, with Debian's clang
	go generate ./fastpath

pictures: ## draw the pictures of Documentation/pictures from their sources
	go -C test/figures run ./diagrams '$(CURDIR)/Documentation/pictures'

lines: ## count the code, by folder
	test/lines

bench: deps assets build ## measure everything for Documentation/performance.md, 12 minutes (COMPARE=OLD.json)
	mkdir -p '$(FIGURES)'
	$(if $(COMPARE),cp '$(COMPARE)' bin/compare.json)
	go run ./test/bench -out '$(FIGURES)/results.json' -page Documentation/performance.md
	go -C test/figures run . -pictures '$(CURDIR)/$(FIGURES)' $(if $(COMPARE),-compare '$(CURDIR)/bin/compare.json') \
		'$(CURDIR)/$(FIGURES)/results.json'

fleet: deps assets build ## what thousands of nodes cost the store, into Documentation/scaling.md, 40 minutes
	go run ./test/bench -only fleet -page Documentation/scaling.md

faults: deps assets build ## break a cluster at random for 10 minutes and check that it recovers (SEED, root)
	go run ./test/faults $(if $(SEED),-seed '$(SEED)') $(ARGS)

conformance: deps assets ## Kubernetes' own network tests on each backend; writes Documentation/conformance.md (root)
	go run ./test/conformance $(ARGS)

assets: ## build the real etcd, Kubernetes and its tests, CNI plugins and helm, into .assets/
	test/assets/build

deps: ## install the tools that tests and demo need (Debian, root)
	test/deps
	for dir in . dist/pack test/figures test/monitoring; do go -C "$$dir" mod download || exit; done

modules: ## download what any module of this repository needs
	for dir in $(MODULES); do go -C "$$dir" mod download || exit; done

programs: ## build flanneld and flannel for every architecture (ARCHS) into OUT
	for arch in $(ARCHS); do \
		mkdir -p "$(OUT)/bin/$$arch" && GOOS=linux GOARCH=$$arch $(GO_BUILD) -o "$(OUT)/bin/$$arch/" ./cmd/flanneld ./cmd/flannel || exit; \
	done

image: programs pack ## make the container image, no Docker needed: OUT/image (OCI) and OUT/image.tar
	$(if $(IPTABLES),dist/iptables/fetch .assets/iptables $(ARCHS))
	$(PACK) -out '$(OUT)' image

# The name in Documentation/kube-flannel.yml and in the chart.
image-load: IMAGE = localhost/flanneld:devel$(if $(IPTABLES),-iptables)
image-load: ## import the image of this machine's architecture into containerd
	$(MAKE) image ARCHS='$(NATIVE)' IMAGE='$(IMAGE)'
	$(CTR) images import '$(OUT)/image.tar'

release: programs pack ## programs, archives, manifest, chart and checksums into OUT/release
	$(PACK) -out '$(OUT)/release' release

install: build ## install programs, script and units (DESTDIR, PREFIX, CNIDIR, UNITDIR)
	install -D -m 0755 '$(BIN)/flanneld' '$(DESTDIR)$(PREFIX)/bin/flanneld'
	install -D -m 0755 '$(BIN)/flannel' '$(DESTDIR)$(CNIDIR)/flannel'
	install -D -m 0755 dist/mk-docker-opts.sh '$(DESTDIR)$(PREFIX)/libexec/flannel/mk-docker-opts.sh'
	for unit in $(wildcard dist/*.service dist/*.conf); do \
		case $$unit in *.conf) to='$(PREFIX)/share/flannel' ;; *) to='$(UNITDIR)' ;; esac; \
		sed -E 's#/usr/(local/)?(bin|libexec)/flannel#$(PREFIX)/\2/flannel#g' $$unit | \
			install -D -m 0644 /dev/stdin "$(DESTDIR)$$to/$${unit##*/}" || exit; \
	done

clean: ## remove what was built
	rm -rf bin .assets dist/out
