package kube

import (
	"testing"

	"go.uber.org/goleak"
	"k8s.io/klog/v2"
)

// TestMain fails when a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	klog.StopFlushDaemon()
	goleak.VerifyTestMain(m)
}
