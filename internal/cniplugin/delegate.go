package cniplugin

import (
	"encoding/json"
	"fmt"

	"flannel/internal/ipfam"
	"flannel/subnet/env"
)

// delegate builds the configuration of the plugin that does the work from ours and
// from subnet.env. What the user configured is kept as it was written.
func (c config) delegate(e env.Env) ([]byte, error) {
	conf := map[string]any{"type": c.delegateType, "ipMasq": !e.IPMasq, "mtu": e.MTU}
	if c.delegateType == defaultType {
		conf["isGateway"] = true
	}
	for key, raw := range c.Delegate {
		conf[key] = raw
	}
	conf["name"], conf["ipam"] = c.Name, c.ipam(e)
	if c.CNIVersion != "" {
		conf["cniVersion"] = c.CNIVersion
	}
	if isSet(c.RuntimeConfig) {
		conf["runtimeConfig"] = c.RuntimeConfig
	}
	// These come with GC.
	for key, raw := range map[string]json.RawMessage{keyAttached: c.Attached, keyAttachedV0: c.AttachedV0} {
		if raw != nil {
			conf[key] = raw
		}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return nil, fmt.Errorf("write the delegate's configuration: %w", err)
	}
	return text, nil
}

// ipam is the address part: one range per family, and a route to every overlay
// network, after those that the user asked for.
func (c config) ipam(e env.Env) map[string]any {
	conf := map[string]any{"type": c.ipamType}
	for key, raw := range c.IPAM {
		conf[key] = raw
	}
	type addressRange struct {
		Subnet string `json:"subnet"`
	}
	type route struct {
		Dst string `json:"dst"`
	}
	routes, ranges := []any{}, [][]addressRange{}
	for _, r := range c.routes {
		routes = append(routes, r)
	}
	for f, s := range ipfam.Prefixes(e.Masked()) {
		ranges = append(ranges, []addressRange{{s.String()}})
		for _, n := range e.Network[f] {
			routes = append(routes, route{n.String()})
		}
	}
	conf["ranges"], conf["routes"] = ranges, routes
	return conf
}

func (o object) set(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	o[key] = raw
	return nil
}
