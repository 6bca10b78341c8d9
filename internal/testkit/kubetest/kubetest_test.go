package kubetest_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"flannel/internal/testkit/kubetest"
)

func TestNodesGetPodCIDRs(t *testing.T) {
	s := kubetest.Start(t, kubetest.Options{PodRanges: []netip.Prefix{
		netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/56"),
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.API.CreateNode(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := s.API.GetNode(ctx, "one")
		if err != nil {
			t.Fatal(err)
		}
		if len(n.Spec.PodCIDRs) == 2 {
			break
		}
		<-tick.C
	}
	s.StopAPIServer()
	s.StartAPIServer()
	if n, err := s.API.GetNode(ctx, "one"); err != nil || len(n.Spec.PodCIDRs) != 2 {
		t.Errorf("after a restart: %+v, %v", n, err)
	}
}
