package cniplugin

import (
	"encoding/json"
	"fmt"
	"maps"

	"flannel/internal/ipfam"
	"flannel/subnet/env"
)

// delegate is the plugin that does the work, with its configuration.
type delegate struct {
	Type   string
	IPAM   string
	Config []byte
}

type addressRange struct {
	Subnet string `json:"subnet"`
}

type route struct {
	Dst string `json:"dst"`
}

// delegate builds the delegate's configuration from ours and from subnet.env. What
// the user configured is kept as it was written.
func (c config) delegate(e env.Env) (delegate, error) {
	kind, err := c.Delegate.text("type", defaultType)
	if err != nil {
		return delegate{}, err
	}
	ipam, err := c.delegateIPAM(e)
	if err != nil {
		return delegate{}, err
	}
	ipamType, err := ipam.text("type", "")
	if err != nil {
		return delegate{}, err
	}
	conf := maps.Clone(c.Delegate)
	if conf == nil {
		conf = object{}
	}
	defaults := map[string]any{"type": kind, "ipMasq": !e.IPMasq, "mtu": e.MTU}
	if kind == defaultType {
		defaults["isGateway"] = true
	}
	fixed := map[string]any{"name": c.Name, "ipam": ipam}
	if c.CNIVersion != "" {
		fixed["cniVersion"] = c.CNIVersion
	}
	if isSet(c.RuntimeConfig) {
		fixed["runtimeConfig"] = c.RuntimeConfig
	}
	if err := conf.fill(defaults, fixed); err != nil {
		return delegate{}, err
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return delegate{}, fmt.Errorf("write the delegate's configuration: %w", err)
	}
	return delegate{Type: kind, IPAM: ipamType, Config: text}, nil
}

// delegateIPAM is the address part: one range per family, and a route to
// every overlay network, after those that the user asked for.
func (c config) delegateIPAM(e env.Env) (object, error) {
	given, err := c.routes()
	if err != nil {
		return nil, err
	}
	routes := []any{}
	for _, r := range given {
		routes = append(routes, r)
	}
	ranges := [][]addressRange{}
	for f, s := range ipfam.Prefixes(e.Masked()) {
		ranges = append(ranges, []addressRange{{s.String()}})
		for _, n := range e.Network[f] {
			routes = append(routes, route{n.String()})
		}
	}
	ipam := maps.Clone(c.IPAM)
	if ipam == nil {
		ipam = object{}
	}
	err = ipam.fill(map[string]any{"type": defaultIPAM}, map[string]any{"ranges": ranges, "routes": routes})
	return ipam, err
}

// fill sets the defaults that are missing, and all fixed values.
func (o object) fill(defaults, fixed map[string]any) error {
	for key, value := range defaults {
		if _, found := o[key]; !found {
			if err := o.set(key, value); err != nil {
				return err
			}
		}
	}
	for key, value := range fixed {
		if err := o.set(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (o object) set(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	o[key] = raw
	return nil
}
