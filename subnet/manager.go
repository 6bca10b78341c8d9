package subnet

import (
	"context"
	"errors"
	"net/netip"

	"flannel/internal/ipfam"
)

// ErrLeaseLost is returned by Keep if this node's subnet belongs to another
// node. The caller acquires another.
var ErrLeaseLost = errors.New("lease lost")

// Snapshot is the complete set of leases at one moment.
type Snapshot struct {
	// Leases are in the order of their names. They are never changed: what is
	// the same in two snapshots may be the same pointer.
	Leases []*Lease
	// Epoch is another one than before when the store was wiped, restored or
	// replaced: what it lacks then may come back.
	Epoch uint64
	// Unconfirmed is true if the leases were known at an earlier time, and the store has
	// not answered since: nothing is deleted because of it.
	Unconfirmed bool
}

// Manager is a store of leases. Its methods wait out a store that cannot be
// reached and return early only when ctx ends.
type Manager interface {
	// Config waits until the network configuration exists and is valid. While
	// it waits it logs why, once per cause. A configuration that cannot become
	// valid by waiting (a file) is an error.
	Config(ctx context.Context) (*Config, error)

	// Overrides returns the public addresses that an operator has set for this
	// node in the store; they replace the flags. An absent family is not
	// overridden.
	Overrides(ctx context.Context) (ipfam.Pair[netip.Addr], error)

	// Previous returns what an earlier run of the node with these public
	// addresses has published; zero if there is nothing. prev is the subnet
	// of that run, if it is known. It is the record that Acquire would re-use.
	Previous(ctx context.Context, public ipfam.Pair[netip.Addr], prev ipfam.Pair[netip.Prefix]) (Attrs, error)

	// Acquire publishes a and returns the node's lease. When this manager
	// already holds one, the same subnet is published with the new
	// attributes. Otherwise prev, the subnet of an earlier run, is asked for
	// again if it is free.
	Acquire(ctx context.Context, a Attrs, prev ipfam.Pair[netip.Prefix]) (Lease, error)

	// Keep holds the lease that Acquire returned: it renews it and publishes
	// it again when it was wiped; then it calls notify with the lease as it is
	// from there on, with its end and its precedence. notify must not block. Keep blocks until
	// ctx ends, then returns ctx.Err(), or until the subnet is lost, then
	// returns ErrLeaseLost, or until what is to be published has changed in the
	// store, then returns nil: the caller acquires the lease again.
	Keep(ctx context.Context, own Lease, notify func(Lease)) error

	// Watch calls set with the complete set of leases, this node's included,
	// once at the start and after every change. It blocks until ctx ends. A
	// store that cannot be reached leaves the last set standing. set must not
	// block and must not change the slice; Watch never changes a slice it has
	// passed.
	Watch(ctx context.Context, set func(Snapshot)) error

	// Reconnect is called when the address that this node uses is gone:
	// connections that come from it are dead.
	Reconnect()

	// StoreAddrs returns the addresses that the store is or was reached at,
	// also while it cannot be reached; none when they are unknown.
	StoreAddrs() []netip.Addr

	// List reads the complete set of leases afresh from the store, in the
	// order of their names.
	List(ctx context.Context) ([]*Lease, error)
}
