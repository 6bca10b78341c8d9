package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flannel/internal/ipfam"
	"flannel/subnet/env"
)

// Check asks the delegate whether a container is still attached as ADD said.
// An address outside of the node's present subnet is a warning.
func (p Plugin) Check(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	r, err := (scratch{c.DataDir}).load(args.ContainerID)
	if errors.Is(err, fs.ErrNotExist) {
		return types.NewError(types.ErrUnknownContainer,
			fmt.Sprintf("container %s was not attached by flannel: %v; make the pod anew", args.ContainerID, err), "")
	}
	if err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("%v; make the pod anew", err), "")
	}
	p.warnOutside(c)
	conf, err := c.checkConfig(r)
	if err != nil {
		return err
	}
	if err := invoke.DelegateCheck(ctx, r.Type, conf, nil); err != nil && !unknownVerb(err) {
		return delegateError(r.Type, err)
	}
	return nil
}

// checkConfig is the configuration of ADD with what the runtime adds for CHECK.
func (c config) checkConfig(r record) ([]byte, error) {
	conf := object{}
	if err := json.Unmarshal(r.text, &conf); err != nil {
		return nil, fmt.Errorf("read the delegate's configuration: %w", err)
	}
	if isSet(c.PrevResult) {
		conf["prevResult"] = c.PrevResult
	}
	if c.CNIVersion != "" {
		if err := conf.set("cniVersion", c.CNIVersion); err != nil {
			return nil, err
		}
	}
	return json.Marshal(conf)
}

// warnOutside names the addresses that are not in the node's present subnet:
// they work here, and other nodes do not find them.
func (p Plugin) warnOutside(c config) {
	e, err := env.Read(c.SubnetFile)
	if err != nil {
		return
	}
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
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
			p.warn("%s is outside of this node's subnet %s: other nodes do not reach it; make the pod anew", a, s)
		}
	}
}

// Status reports whether an ADD at this moment would fail for a reason that
// lies on this node: no subnet.env, or no delegate. The daemon and its store
// may be away.
func (p Plugin) Status(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	e, err := env.Read(c.SubnetFile)
	if err != nil {
		return types.NewError(codeNotAvailable, err.Error(), "")
	}
	d, err := c.delegate(e)
	if err != nil {
		return err
	}
	for _, name := range []string{d.Type, d.IPAM} {
		if _, err := invoke.FindInPath(name, filepath.SplitList(args.Path)); err != nil {
			return types.NewError(codeNotAvailable, fmt.Sprintf(
				"plugin %s is not in %s: install the CNI plugins there", name, args.Path), "")
		}
	}
	if err := invoke.DelegateStatus(ctx, d.Type, d.Config, nil); err != nil && !unknownVerb(err) {
		return delegateError(d.Type, err)
	}
	return nil
}

// GC removes what containers left behind that are gone: first the delegate
// does, then the scratch files and the addresses that host-local has reserved.
// Without a list of what is in use nothing is removed.
func (p Plugin) GC(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	inUse, found, err := c.attachments()
	if err != nil {
		return err
	}
	errs := []error{p.delegateGC(ctx, c)}
	if found {
		containers := map[string]bool{}
		for _, a := range inUse {
			containers[a.ContainerID] = true
		}
		errs = append(errs, (scratch{c.DataDir}).sweep(c.Name, containers, p.warn))
		if r, ok := c.reservations(); ok {
			errs = append(errs, r.sweep(ctx, inUse, p.warn))
		}
	}
	return oneLine(errs)
}

// delegateGC passes the verb on. Before the first subnet.env the delegate has
// done nothing yet.
func (p Plugin) delegateGC(ctx context.Context, c config) error {
	e, err := env.Read(c.SubnetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := c.delegate(e)
	if err != nil {
		return err
	}
	conf := object{}
	if err := json.Unmarshal(d.Config, &conf); err != nil {
		return err
	}
	for key, raw := range map[string]json.RawMessage{keyAttached: c.Attached, keyAttachedV0: c.AttachedV0} {
		if raw != nil {
			conf[key] = raw
		}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return err
	}
	if err := invoke.DelegateGC(ctx, d.Type, text, nil); err != nil && !unknownVerb(err) {
		return delegateError(d.Type, err)
	}
	return nil
}
