// Package plugins is a module of its own: it pins the CNI plugins that the
// tests run flannel with. Kubernetes asks for other versions of what they need.
package plugins
