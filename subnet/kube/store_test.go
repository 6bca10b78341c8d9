package kube

import (
	"testing"

	"flannel/internal/testkit/kubetest"
	"flannel/subnet/subnettest"
)

// TestAgainstARealAPIServer runs everything against one server, each test with
// Nodes of its own.
func TestAgainstARealAPIServer(t *testing.T) {
	server := kubetest.Start(t, kubetest.Options{})
	t.Run("as a store", func(t *testing.T) {
		subnettest.ConformanceAssigned(t, func(t *testing.T) subnettest.Harness { return newHarness(t, server) })
	})
	t.Run("knows the address of the server", func(t *testing.T) { knowsItsStoreAddr(t, server) })
	t.Run("heartbeats are left out", func(t *testing.T) { heartbeatsAreLeftOut(t, newHarness(t, server)) })
	for group, tests := range map[string]map[string]func(*testing.T, *harness){"waiting": causes(), "our Node": owns()} {
		t.Run(group, func(t *testing.T) {
			for name, test := range tests {
				t.Run(name, func(t *testing.T) { test(t, newHarness(t, server)) })
			}
		})
	}
}
