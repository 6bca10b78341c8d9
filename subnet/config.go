package subnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"flannel/internal/ipfam"
	"flannel/internal/options"
)

// DefaultBackend is the type that an absent Backend object stands for.
const DefaultBackend = "udp"

// Config is the network configuration that all nodes share.
type Config struct {
	// Network is the overlay network; a family that is off is the zero Prefix.
	Network ipfam.Pair[netip.Prefix]
	// SubnetLen, SubnetMin and SubnetMax define which subnets nodes get. They are
	// set by ParseConfig with subnets asked for, and meant for stores that
	// pick subnets themselves.
	SubnetLen ipfam.Pair[int]
	SubnetMin ipfam.Pair[netip.Addr]
	SubnetMax ipfam.Pair[netip.Addr]
	// EnableNFTables is the key as it stands in the configuration.
	EnableNFTables bool
	// MasqueradeExclude are destinations for which pods' packets are not
	// masqueraded; ExcludeNodes adds the public addresses of all nodes.
	MasqueradeExclude []netip.Prefix
	ExcludeNodes      bool
	// BackendType is in lower case; Backend is the whole object.
	BackendType string
	Backend     json.RawMessage
	// Warnings are lines for people about keys that have no effect.
	Warnings []string
}

// Enabled reports which families are on.
func (c *Config) Enabled() ipfam.Pair[bool] { return ipfam.Enabled(c.Network) }

// familyKeys are the names and limits of one family's keys.
type familyKeys struct {
	enable, network, subnetLen, subnetMin, subnetMax string

	example       string
	defaultOn     bool
	defaultLen    int // for a network of at most defaultLen-2 bits
	longestSubnet int
	longestNet    int
}

var keys = ipfam.Pair[familyKeys]{
	ipfam.V4: {
		enable: "EnableIPv4", network: "Network", subnetLen: "SubnetLen",
		subnetMin: "SubnetMin", subnetMax: "SubnetMax",
		example: "10.244.0.0/16", defaultOn: true, defaultLen: 24, longestSubnet: 30, longestNet: 28,
	},
	ipfam.V6: {
		enable: "EnableIPv6", network: "IPv6Network", subnetLen: "IPv6SubnetLen",
		subnetMin: "IPv6SubnetMin", subnetMax: "IPv6SubnetMax",
		example: "fd00:10:244::/56", defaultLen: 64, longestSubnet: 126, longestNet: 124,
	},
}

// ParseConfig reads the JSON text of a network configuration. With subnets it
// also checks and completes the keys that define which subnets nodes get, for
// stores that choose subnets themselves. An error names the key, the value
// and what is allowed.
func ParseConfig(raw []byte, subnets bool) (*Config, error) {
	o, err := options.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	c := &Config{}
	o.Bool("EnableNFTables", &c.EnableNFTables)
	c.readExclude(o)
	for f, k := range keys.Each() {
		c.readFamily(o, f, k, subnets)
	}
	c.readBackend(o)
	if err := o.Err(); err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	if c.Enabled() == (ipfam.Pair[bool]{}) {
		return nil, fmt.Errorf("network configuration: EnableIPv4 and EnableIPv6: both are false: set one to true")
	}
	c.Warnings = o.Unknown()
	return c, nil
}

func (c *Config) readFamily(o *options.Object, f ipfam.Family, k familyKeys, subnets bool) {
	on := k.defaultOn
	var network netip.Prefix
	o.Bool(k.enable, &on)
	o.Prefix(k.network, &network)
	lenGiven, minGiven, maxGiven := o.Raw(k.subnetLen), o.Raw(k.subnetMin), o.Raw(k.subnetMax)
	switch {
	case !on:
		return
	case !network.IsValid():
		if o.Raw(k.network) == nil {
			o.Require(k.network, "a network such as "+k.example)
		}
		return
	case ipfam.Of(network.Addr()) != f || network.Addr().Is4In6():
		o.Refuse(k.network, network.String(), fmt.Sprintf("an %s network such as %s", f.Name(), k.example))
		return
	}
	c.Network[f] = network
	if !subnets {
		return
	}
	if network.Bits() > k.longestNet {
		o.Refuse(k.network, network.String(), fmt.Sprintf("a network of at most /%d", k.longestNet))
		return
	}
	if string(lenGiven) == "0" {
		lenGiven = nil
	}
	c.readSubnetLen(o, f, k, lenGiven)
	c.readRange(o, f, k, minGiven, maxGiven)
}

func (c *Config) readSubnetLen(o *options.Object, f ipfam.Family, k familyKeys, given json.RawMessage) {
	shortest := c.Network[f].Bits() + 2
	c.SubnetLen[f] = max(k.defaultLen, shortest)
	if given != nil {
		o.Int(k.subnetLen, &c.SubnetLen[f], shortest, k.longestSubnet)
	}
}

// readRange sets the first and the last subnet that nodes may get: by default
// all of the network but its first subnet.
func (c *Config) readRange(o *options.Object, f ipfam.Family, k familyKeys, minGiven, maxGiven json.RawMessage) {
	network, bits := c.Network[f], c.SubnetLen[f]
	first := Add(network.Addr(), 1, bits)
	last := netip.PrefixFrom(Last(network), bits).Masked().Addr()
	read := func(key string, given json.RawMessage, dst *netip.Addr, byDefault netip.Addr) {
		*dst = byDefault
		if given == nil {
			return
		}
		*dst = netip.Addr{}
		o.Addr(key, dst)
		allowed := fmt.Sprintf("an address inside %s on a /%d boundary", network, bits)
		if dst.IsValid() && (!network.Contains(*dst) || netip.PrefixFrom(*dst, bits).Masked().Addr() != *dst) {
			o.Refuse(key, dst.String(), allowed)
		}
	}
	read(k.subnetMin, minGiven, &c.SubnetMin[f], first)
	read(k.subnetMax, maxGiven, &c.SubnetMax[f], last)
	if low, high := c.SubnetMin[f], c.SubnetMax[f]; low.IsValid() && high.IsValid() && high.Less(low) {
		o.Refuse(k.subnetMin, low.String(), "an address not above "+k.subnetMax+" "+high.String())
	}
}

// notSupported are backend types of flannel that this project does not have.
var notSupported = []string{"ipsec", "extension", "tencent-vpc"}

func (c *Config) readBackend(o *options.Object) {
	c.BackendType = DefaultBackend
	c.Backend = o.Raw("Backend")
	if c.Backend == nil {
		return
	}
	inner, err := options.Parse(c.Backend)
	if err != nil {
		o.Refuse("Backend", string(c.Backend), `an object such as {"Type": "vxlan"}`)
		return
	}
	var name string
	inner.String("Type", &name)
	if err := inner.Err(); err != nil {
		o.Refuse("Backend", string(c.Backend), `an object such as {"Type": "vxlan"}`)
		return
	}
	c.BackendType = strings.ToLower(name)
	switch {
	case name == "":
		o.Require("Backend.Type", "vxlan, host-gw or udp")
	case slices.Contains(notSupported, c.BackendType):
		o.Refuse("Backend.Type", strconv.Quote(name), "vxlan, host-gw or udp: this type is not supported")
	}
}
