// Package cniplugin is the CNI plugin: it puts the node's subnet into the
// configuration of another plugin, the delegate, and lets that one work.
package cniplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flannel/internal/socket"
	"flannel/subnet/env"
)

const (
	// patience is how long ADD waits for the daemon to write subnet.env.
	patience = 5 * time.Second
	poll     = 50 * time.Millisecond
)

// Plugin answers the verbs of CNI. Results go to Stdout; Stderr gets warnings
// only, one line each.
type Plugin struct {
	Stdout, Stderr io.Writer
	// Patience is how long ADD waits for subnet.env; 0 means 5 seconds, less
	// than 0 not at all.
	Patience time.Duration
}

// Funcs returns the verbs in the form that the CNI library calls. They end
// with ctx.
func (p Plugin) Funcs(ctx context.Context) skel.CNIFuncs {
	with := func(verb func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error { return verb(ctx, args) }
	}
	return skel.CNIFuncs{
		Add: with(p.Add), Del: with(p.Del), Check: with(p.Check), Status: with(p.Status), GC: with(p.GC),
	}
}

// Add attaches a container and prints the delegate's result.
func (p Plugin) Add(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	e, err := p.await(ctx, c.SubnetFile)
	if err != nil {
		return err
	}
	conf, err := c.delegate(e)
	if err != nil {
		return err
	}
	// The file is written first: a plugin that is killed leaves what DEL needs.
	if err := (scratch{c.DataDir}).save(args.ContainerID, conf); err != nil {
		return types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	hint := p.readdress(c, e)
	result, err := p.attach(ctx, c, conf, args.Netns)
	if err != nil {
		return explain(err, hint)
	}
	if c.CNIVersion != "" {
		if result, err = result.GetAsVersion(c.CNIVersion); err != nil {
			return fmt.Errorf("result of delegate %s: %w", c.delegateType, err)
		}
	}
	return result.PrintTo(p.Stdout)
}

// Del detaches a container with the configuration that ADD used. A container
// that is not known is detached already.
func (p Plugin) Del(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	files := scratch{c.DataDir}
	r, err := files.load(args.ContainerID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errGarbled):
		// The file is of no use any more, and DEL must not fail for ever.
		p.warn("%v: removed", err)
		p.delAsNow(ctx, c)
		return files.remove(args.ContainerID)
	case err != nil:
		return types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	if err := invoke.DelegateDel(ctx, r.Type, r.text, nil); err != nil {
		return delegateError(r.Type, err)
	}
	return files.remove(args.ContainerID)
}

// delAsNow detaches a container with the configuration that ADD would use at
// this moment: host-local finds a container's addresses by its ID.
func (p Plugin) delAsNow(ctx context.Context, c config) {
	e, err := env.Read(c.SubnetFile)
	if err == nil {
		var conf []byte
		if conf, err = c.delegate(e); err == nil {
			err = invoke.DelegateDel(ctx, c.delegateType, conf, nil)
		}
	}
	if err != nil {
		p.warn("an address may stay reserved until GC: %v", oneLine(err))
	}
}

// await reads subnet.env and gives the daemon some time to write it.
func (p Plugin) await(ctx context.Context, path string) (e env.Env, err error) {
	err = retry(ctx, cmp.Or(p.Patience, patience), poll, func() (again bool, err error) {
		e, err = env.Read(path)
		return true, err
	})
	if err != nil && ctx.Err() == nil {
		err = subnetFileError(ctx, path, err)
	}
	return e, err
}

// retry tries until it succeeds, until it is not to be tried again, or for as long
// as its limit: then it returns the last error. Its error is that of ctx if that
// ends first.
func retry(ctx context.Context, limit, every time.Duration, try func() (again bool, err error)) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		again, err := try()
		if err == nil || !again {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return err
		case <-tick.C:
		}
	}
}

// subnetFileError tells the runtime to try again later if the daemon has not
// written the file yet.
func subnetFileError(ctx context.Context, path string, err error) error {
	code := types.ErrInternal
	if errors.Is(err, fs.ErrNotExist) {
		code = types.ErrTryAgainLater
	}
	return types.NewError(code, err.Error(), waitsFor(ctx, path, err))
}

// waitsFor returns what the daemon reports to wait for if subnet.env is missing.
func waitsFor(ctx context.Context, path string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return socket.Waiting(ctx, socket.Path(path))
}

func (p Plugin) warn(format string, args ...any) {
	fmt.Fprintf(p.Stderr, "flannel: "+format+"\n", args...)
}
