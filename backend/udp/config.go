package udp

import (
	"regexp"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/options"
	"flannel/kernel"
)

const typeName = "udp"

// Type has the keys of Config.
var Type = backend.Type{Name: typeName, Keys: readKeys, Traits: backend.Traits{
	Devices:  backend.Devices{Kind: kernel.KindTUN, Name: regexp.MustCompile("^" + devicePrefix + "[0-9]+$")},
	Overhead: overhead,
}}

// Config holds the backend's own keys.
type Config struct {
	// Port is the UDP port of all nodes.
	Port int
	// KnownSourcesOnly drops packets from an outer address that no lease names.
	KnownSourcesOnly bool
	// StrictSources does that too, and drops packets whose source is not in a
	// subnet of the node that they come from.
	StrictSources bool
}

// defaultPort is flannel's.
const defaultPort = 8285

func readKeys(o *options.Object, _ ipfam.Pair[bool]) backend.Config {
	c := Config{Port: defaultPort}
	o.Int("Port", &c.Port, 1, 65535)
	o.Bool("KnownSourcesOnly", &c.KnownSourcesOnly)
	o.Bool("StrictSources", &c.StrictSources)
	return c
}

// Needs implements backend.Config.
func (Config) Needs() backend.Needs { return backend.Needs{Peers: true} }

// Encapsulation implements backend.Config.
func (c Config) Encapsulation() backend.Encapsulation { return backend.Encapsulation{Port: c.Port} }
