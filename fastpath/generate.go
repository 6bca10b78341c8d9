package fastpath

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang -strip llvm-strip -type report -type reason -type direction -type format bpf bpf/fastpath.c -- -Wall -Wextra -Wno-unused-parameter
