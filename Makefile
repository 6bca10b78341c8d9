# What people type. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# grpcnotrace leaves out a debugging page that nothing serves, and with it the
# template packages: 4 MB of the binary.
TAGS := grpcnotrace
LDFLAGS := -s -w -X flannel/internal/version.linked=$(VERSION)
PROGRAMS := flanneld flannel flannel-lab

.PHONY: help build demo test check bench assets deps clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the programs into bin/
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

demo: deps build ## three hosts on this machine: lease, ping, break, heal
	test/assets/build etcd
	bin/flannel-lab demo

test: deps assets ## every test, on the real kernel, etcd and Kubernetes (root)
	test/run

check: ## formatting, vet and lint
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go tool -modfile=test/tools/go.mod golangci-lint run

bench: deps assets build ## measure speed, memory and healing; prints a table
	go run ./test/bench

assets: ## build the real etcd and Kubernetes that tests run against, into .assets/
	test/assets/build

deps: ## install the tools that tests and demo need (Debian, root)
	test/deps

clean: ## remove what was built
	rm -rf bin .assets
