// Package tools is a module of its own: it pins the linter of `make check`.
package tools
