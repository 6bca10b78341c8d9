package subnet

import (
	"encoding/json"
	"errors"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/internal/options"
)

// allNodes stands for the public addresses of all nodes.
const allNodes = "nodes"

// readExclude reads the destinations that are not masqueraded.
func (c *Config) readExclude(o *options.Object) {
	const key, allowed = "MasqueradeExclude", `a list of networks such as "192.0.2.0/24", and the word "nodes"`
	raw := o.Raw(key)
	if raw == nil {
		return
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		o.Refuse(key, string(raw), allowed)
		return
	}
	for _, text := range list {
		if text == allNodes {
			c.ExcludeNodes = true
			continue
		}
		p, err := parseNetwork(text)
		if err != nil {
			o.Refuse(key, text, allowed)
			return
		}
		c.MasqueradeExclude = append(c.MasqueradeExclude, p)
	}
}

// parseNetwork reads a network, or an address, which is a network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, errAddr := netip.ParseAddr(text)
		if errAddr != nil || a.Zone() != "" {
			return p, err
		}
		p = ipfam.Host(a)
	}
	if p.Addr().Is4In6() {
		return p, errors.New("an address of one family in the other")
	}
	return p.Masked(), nil
}
