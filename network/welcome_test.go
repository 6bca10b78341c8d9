package network

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"flannel/kernel"
	"flannel/subnet"
	"flannel/subnet/subnettest"
)

// adding is a kernel that notes what Add was called with.
type adding struct {
	*kernel.Fake
	mu    sync.Mutex
	added []string
}

func (k *adding) Add(ctx context.Context, some kernel.State) {
	k.mu.Lock()
	for _, r := range some.Routes {
		k.added = append(k.added, r.Dst.String())
	}
	k.mu.Unlock()
	k.Fake.Add(ctx, some)
}

func TestASinglePeerIsWelcomedAheadOfThePass(t *testing.T) {
	n := newNode(t)
	n.peer("22")
	var k *adding
	n.NewKernel = func(s kernel.Scope) (Kernel, error) {
		n.kernel = n.kernel.Restart(s)
		k = &adding{Fake: n.kernel}
		return k, nil
	}
	n.start()
	n.await("the first peer", func() bool { return strings.Contains(n.last(), "10.5.22.0/24") })
	n.peer("33")
	n.await("the second peer", func() bool { return strings.Contains(n.last(), "10.5.33.0/24") })
	contested := n.peer("44")
	n.await("the third peer", func() bool { return strings.Contains(n.last(), "10.5.44.0/24") })
	contested.Subnet = subnettest.Subnets("10.5.45.0/24") // with the address of another
	n.store.Put(contested, false)
	n.await("the fourth peer", func() bool { return strings.Contains(n.last(), "10.5.45.0/24") })
	k.mu.Lock()
	defer k.mu.Unlock()
	if want := []string{"10.5.33.0/24", "10.5.44.0/24"}; !slices.Equal(k.added, want) {
		t.Errorf("welcomed %v, want %v", k.added, want)
	}
}

func TestNewcomersAreFew(t *testing.T) {
	list := func(names ...string) []*subnet.Lease {
		var all []*subnet.Lease
		for _, n := range names {
			all = append(all, &subnet.Lease{Name: n})
		}
		return all
	}
	var many []*subnet.Lease
	for i := range fewNew + 1 {
		many = append(many, &subnet.Lease{Name: fmt.Sprintf("n%02d", i)})
	}
	tests := map[string]struct {
		known, leases []*subnet.Lease
		want          []int
	}{
		"none":         {list("a", "b"), list("a", "b"), nil},
		"one between":  {list("a", "c"), list("a", "b", "c"), []int{1}},
		"one each end": {list("b"), list("a", "b", "c"), []int{0, 2}},
		"one for one":  {list("a", "b"), list("a", "c"), []int{1}},
		"one gone":     {list("a", "b"), list("b"), nil},
		"many":         {nil, many, nil},
		"many others":  {list("a", "b", "c"), many, nil},
	}
	for name, tt := range tests {
		if got := newcomers(tt.known, tt.leases); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
