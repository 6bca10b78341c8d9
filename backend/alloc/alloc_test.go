package alloc

import (
	"testing"

	"flannel/backend/backendtest"
	"flannel/subnet"
)

func TestNothingIsPlanned(t *testing.T) {
	b := backendtest.New(t, Type, `{"Type":"alloc"}`, backendtest.Env(true, true))
	peers := []subnet.Lease{backendtest.Node(typeName, 2), backendtest.Node("vxlan", 3)}
	state, status, err := b.Plan(backendtest.Node(typeName, 1), peers, backendtest.Host())
	if got := backendtest.Text(state, status); err != nil || got != "" {
		t.Errorf("got %q, %v", got, err)
	}
	if got := b.MTU(backendtest.Uplink()); got != 1500 {
		t.Errorf("MTU %d, want 1500", got)
	}
	if got := b.Attrs(backendtest.Uplink()).BackendType; got != "alloc" {
		t.Errorf("published as %q", got)
	}
}
