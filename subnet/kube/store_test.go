package kube

import (
	"testing"

	"flannel/internal/kubetest"
	"flannel/subnet/subnettest"
)

func TestAgainstARealAPIServer(t *testing.T) {
	server := kubetest.Start(t, kubetest.Options{})
	subnettest.ConformanceAssigned(t, func(t *testing.T) subnettest.Harness { return newHarness(t, server) })
}
