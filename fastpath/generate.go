package fastpath

//go:generate bpf/build .
