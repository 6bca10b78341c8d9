package warm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/statedir"
	"flannel/subnet"
)

// The documents: what this node has, and the leases of all nodes.
const (
	ownDocument   = "lease"
	peersDocument = "peers"
)

// format is that of the documents.
const format = 1

const (
	// outage is for how long a lease without an end is used after the last
	// contact with its store.
	outage = 24 * time.Hour
	// clockError is by how much the clock may be behind.
	clockError = 10 * time.Minute
)

// state is what a node knows of itself.
type state struct {
	Format int    `json:"format"`
	Where  string `json:"where"`
	// Identity is that of the store.
	Identity string `json:"identity"`
	// Contact is when the store was reached last.
	Contact time.Time `json:"contact"`
	// Addrs are those that the store was reached at.
	Addrs     []netip.Addr           `json:"addrs,omitempty"`
	Config    *subnet.Config         `json:"config"`
	Overrides ipfam.Pair[netip.Addr] `json:"overrides"`
	// Asked is what this node has asked to publish; an operator may have made the
	// record another one.
	Asked subnet.Attrs `json:"asked"`
	Own   subnet.Lease `json:"own"`
}

// load reads what this node knew last.
func load(dir *statedir.Dir) (*state, error) {
	s := &state{}
	if err := dir.Load(ownDocument, s); err != nil {
		return nil, err
	}
	if s.Config != nil && string(s.Config.Backend) == "null" {
		s.Config.Backend = nil
	}
	return s, nil
}

// check returns why the state cannot be used now. config and wanted are nil while
// they are not known.
func (s *state) check(o Options, config *subnet.Config, wanted *subnet.Attrs, now time.Time) error {
	until := s.Own.Expires
	if until.IsZero() {
		until = s.Contact.Add(outage)
	}
	switch {
	case s.Format != format || s.Config == nil || s.Own.Subnet == (ipfam.Pair[netip.Prefix]{}):
		return errors.New("it has another format, or was discarded")
	case s.Where != o.Where:
		return errors.New("it belongs to another store or another node")
	case config != nil && !sameConfig(config, s.Config):
		return errors.New("the network configuration has changed")
	case wanted != nil && s.Asked != *wanted:
		return fmt.Errorf("it was published with another public address or other settings: %v", s.Asked.PublicIP)
	case now.Before(s.Contact.Add(-clockError)):
		return fmt.Errorf("the clock is behind: the store was reached at %s", s.Contact.Format(time.RFC3339))
	case !now.Before(until):
		return fmt.Errorf("the lease expired at %s", until.Format(time.RFC3339))
	}
	return o.Check(s.Config)
}

// sameConfig compares two configurations by what has an effect.
func sameConfig(a, b *subnet.Config) bool {
	text := func(c subnet.Config) ([]byte, error) {
		c.Warnings = nil
		return json.Marshal(c)
	}
	textA, errA := text(*a)
	textB, errB := text(*b)
	return errA == nil && errB == nil && bytes.Equal(textA, textB)
}
