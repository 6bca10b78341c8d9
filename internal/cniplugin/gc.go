package cniplugin

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"

	"flannel/subnet/env"
)

// GC removes what containers that are gone have left behind: first what the delegate
// knows, then our files and the addresses that host-local has reserved. Without a
// list of what is in use nothing is removed.
func (p Plugin) GC(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	inUse, found, err := c.attachments()
	if err != nil {
		return err
	}
	errs := []error{delegateGC(ctx, c, args.Path)}
	if found {
		containers := map[string]bool{}
		for _, a := range inUse {
			containers[a.ContainerID] = true
		}
		errs = append(errs, (scratch{c.DataDir}).sweep(c.Name, containers, p.warn))
		if r, ok := c.reservations(); ok {
			_, _, err := r.sweep(ctx, func(o owner) bool { return o.in(inUse) }, p.warn)
			errs = append(errs, err)
		}
	}
	return oneLine(errs...)
}

// delegateGC passes the verb on. Before the first subnet.env the delegate has
// done nothing yet.
func delegateGC(ctx context.Context, c config, path string) error {
	e, err := env.Read(c.SubnetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	conf, err := c.delegate(e)
	if err != nil {
		return err
	}
	return ask(ctx, invoke.DelegateGC, sinceGC, c.delegateType, path, conf)
}
