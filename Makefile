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
GO_BUILD := CGO_ENABLED=0 go build -buildvcs=$(BUILDVCS) -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)'

# Where things go; packaging: for which architectures, under which name, to which place.
ARCHS ?= amd64 arm64 arm ppc64le s390x riscv64
NATIVE ?= $(shell go env GOARCH)
IMAGE ?= flannel:latest
BIN ?= bin
OUT ?= dist/out
CTR ?= ctr --namespace k8s.io
PREFIX ?= /usr/local
CNIDIR ?= $(PREFIX)/lib/cni
UNITDIR ?= $(PREFIX)/lib/systemd/system
PACK = go run ./dist/pack -programs '$(OUT)/bin' -archs '$(ARCHS)' -native '$(NATIVE)' -version '$(VERSION)' -image '$(IMAGE)'

.PHONY: help build demo test test-fast check bench assets deps clean programs image image-load release install

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the programs into bin/ (BIN)
	$(GO_BUILD) -o '$(BIN)/' $(PROGRAMS:%=./cmd/%) ./internal/lab/tenant

demo: ## three hosts on this machine: lease, ping, break, heal
	test/deps demo
	$(MAKE) build
	test/assets/build etcd
	bin/flannel-lab demo

test: deps assets ## every test, on the real kernel, etcd and Kubernetes (root)
	test/run

test-fast: deps assets ## the tests without whole clusters, for working
	test/run --fast

check: ## formatting, vet and lint
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go tool -modfile=test/tools/go.mod golangci-lint run

bench: deps assets build ## measure speed, memory and healing; prints a table
	go run ./test/bench

assets: ## build the real etcd, Kubernetes and CNI plugins for the tests, into .assets/
	test/assets/build

deps: ## install the tools that tests and demo need (Debian, root)
	test/deps

programs: ## build flanneld and flannel for every architecture (ARCHS) into OUT
	for arch in $(ARCHS); do \
		mkdir -p "$(OUT)/bin/$$arch" && GOOS=linux GOARCH=$$arch $(GO_BUILD) -o "$(OUT)/bin/$$arch/" ./cmd/flanneld ./cmd/flannel || exit; \
	done

image: programs ## make the container image, no Docker needed: OUT/image (OCI) and OUT/image.tar
	$(PACK) -out '$(OUT)' image

image-load: ## import the image of this machine's architecture into containerd
	$(MAKE) image ARCHS='$(NATIVE)'
	$(CTR) images import '$(OUT)/image.tar'

release: IMAGE = flannel:$(VERSION)
release: programs ## programs, archives, manifest, chart and checksums into OUT/release
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
