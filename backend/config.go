package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"flannel/internal/ipfam"
	"flannel/internal/options"
	"flannel/subnet"
)

// Type is a type of backend that the network configuration may name.
type Type struct {
	// Name is Backend.Type in the configuration and BackendType in records.
	Name string
	// Keys reads the keys of the Backend object other than Type. A value that
	// is not allowed is refused on o; then the Config is not used.
	Keys   func(o *options.Object, families ipfam.Pair[bool]) Config
	Traits Traits
}

// Config is the Backend object of the network configuration, parsed.
type Config interface {
	// Needs returns what a backend with this configuration depends on.
	Needs() Needs
	// Encapsulation returns what others must know of the tunnel.
	Encapsulation() Encapsulation
	// New builds the backend. Its only I/O is what env does.
	New(env Env) (Backend, error)
}

// Needs is what a backend depends on. The zero Needs is that of a backend whose
// plan is the same for all peers and all uplinks.
type Needs struct {
	// Peers are the leases of other nodes. They are not watched for a backend
	// that does not need them.
	Peers bool
	// OnLinkRoutes are those of Host: the backend has routes to peers on the
	// uplink's link.
	OnLinkRoutes bool
	// Uplink returns what is wrong with an uplink that does not suit; nil
	// accepts any. An uplink that is wrong at the start ends the daemon; later
	// there is no plan.
	Uplink func(Uplink) error
}

// CheckUplink returns what is wrong with an uplink.
func (n Needs) CheckUplink(up Uplink) error {
	if n.Uplink == nil {
		return nil
	}
	return n.Uplink(up)
}

// Parse reads the Backend object. It also returns a line for each key that has
// no effect.
func (t Type) Parse(raw json.RawMessage, families ipfam.Pair[bool]) (Config, []string, error) {
	o, err := options.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("Backend: %w", err)
	}
	o.String("Type", new(string))
	config := t.Keys(o, families)
	if err := o.Err(); err != nil {
		return nil, nil, fmt.Errorf("Backend: %w", err)
	}
	return config, o.Unknown(), nil
}

// Table lists the types that the network configuration may name.
type Table []Type

// Parse reads the Backend object of the network configuration. It also returns a
// line for each key that has no effect. An error names the key and what is
// allowed.
func (t Table) Parse(c *subnet.Config) (Config, []string, error) {
	typ, ok := t.Find(c.BackendType)
	if !ok {
		return nil, nil, fmt.Errorf("network configuration: Backend.Type: %q is not allowed: use %s", c.BackendType, t.names())
	}
	config, warnings, err := typ.Parse(c.Backend, c.Enabled())
	if err != nil {
		return nil, nil, fmt.Errorf("network configuration: %w", err)
	}
	return config, warnings, nil
}

func (t Table) names() string {
	var names []string
	for _, typ := range t {
		names = append(names, typ.Name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
