package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flannel/internal/ipfam"
	"flannel/subnet/env"
)

// Check asks the delegate whether a container is still attached as ADD reported.
// An address outside of the node's present subnet is a warning.
func (p Plugin) Check(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	r, err := (scratch{c.DataDir}).load(args.ContainerID)
	if errors.Is(err, fs.ErrNotExist) {
		return types.NewError(types.ErrUnknownContainer,
			fmt.Sprintf("container %s was not attached by flannel: %v; recreate the pod", args.ContainerID, err), "")
	}
	if err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("%v; recreate the pod", err), "")
	}
	p.warnOutside(c)
	conf, err := c.checkConfig(r)
	if err != nil {
		return err
	}
	return ask(ctx, invoke.DelegateCheck, sinceCheck, r.Type, args.Path, conf)
}

// checkConfig is the configuration of ADD with what the runtime adds for CHECK.
func (c config) checkConfig(r record) ([]byte, error) {
	conf := object{}
	if err := json.Unmarshal(r.text, &conf); err != nil {
		return nil, fmt.Errorf("read the delegate's configuration: %w", err)
	}
	if isSet(c.PrevResult) {
		result, err := withGateways(c.PrevResult)
		if err != nil {
			return nil, err
		}
		conf["prevResult"] = result
	}
	if c.CNIVersion != "" {
		if err := conf.set("cniVersion", c.CNIVersion); err != nil {
			return nil, err
		}
	}
	return json.Marshal(conf)
}

// prevResult is what ADD has printed, as far as CHECK reads it.
type prevResult struct {
	IPs []struct {
		Address netip.Prefix `json:"address"`
		Gateway netip.Addr   `json:"gateway"`
	} `json:"ips"`
	Routes []object `json:"routes"`
}

// withGateways adds to a result's routes without a gateway that of their family's
// address. The plugin bridge installs them so, but its CHECK looks for exactly the
// routes of the result.
func withGateways(text json.RawMessage) (json.RawMessage, error) {
	var all object
	var result prevResult
	if err := errors.Join(json.Unmarshal(text, &all), json.Unmarshal(text, &result)); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("read prevResult: %v", oneLine(err)), "")
	}
	var gateways ipfam.Pair[netip.Addr]
	for _, ip := range result.IPs {
		if f := ipfam.Of(ip.Address.Addr()); !gateways[f].IsValid() {
			gateways[f] = ip.Gateway
		}
	}
	for _, r := range result.Routes {
		var dst netip.Prefix
		if isSet(r["gw"]) || json.Unmarshal(r["dst"], &dst) != nil {
			continue
		}
		if g := gateways[ipfam.Of(dst.Addr())]; g.IsValid() {
			if err := r.set("gw", g); err != nil {
				return nil, err
			}
		}
	}
	if len(result.Routes) > 0 {
		if err := all.set("routes", result.Routes); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

// warnOutside logs the addresses that are not in the node's present subnet: they
// work on this node, but other nodes do not reach them.
func (p Plugin) warnOutside(c config) {
	e, err := env.Read(c.SubnetFile)
	if err != nil {
		return
	}
	var result prevResult
	if json.Unmarshal(c.PrevResult, &result) != nil {
		return
	}
	subnets := e.Masked()
	for _, ip := range result.IPs {
		a := ip.Address.Addr()
		if !a.IsValid() {
			continue
		}
		if s := subnets[ipfam.Of(a)]; !s.IsValid() || !s.Contains(a) {
			p.warn("%s is outside this node's subnet %s: other nodes do not reach it; recreate the pod", a, s)
		}
	}
}
