package subnet

import (
	"encoding/json"
	"net/netip"

	"flannel/internal/ipfam"
)

// Config is the network configuration that all nodes share.
type Config struct {
	// Network is the overlay network; a family that is off is the zero Prefix.
	Network ipfam.Pair[netip.Prefix]
	// SubnetLen, SubnetMin and SubnetMax say which subnets nodes get. They are
	// set by ParseConfig with subnets asked for, and meant for stores that
	// pick subnets themselves.
	SubnetLen ipfam.Pair[int]
	SubnetMin ipfam.Pair[netip.Addr]
	SubnetMax ipfam.Pair[netip.Addr]
	// EnableNFTables is the key as it stands in the configuration.
	EnableNFTables bool
	// BackendType is in lower case; Backend is the whole object.
	BackendType string
	Backend     json.RawMessage
	// Warnings are lines for people about keys that have no effect.
	Warnings []string
}

// Enabled reports which families are on.
func (c *Config) Enabled() ipfam.Pair[bool] {
	return ipfam.Pair[bool]{c.Network[ipfam.V4].IsValid(), c.Network[ipfam.V6].IsValid()}
}

// ParseConfig reads the JSON text of a network configuration. With subnets it
// also checks and completes the keys that say which subnets nodes get, as
// stores need that pick subnets themselves. An error names the key, the value
// and what is allowed.
func ParseConfig(raw []byte, subnets bool) (*Config, error) {
	panic("TODO")
}
