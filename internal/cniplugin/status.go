package cniplugin

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flannel/subnet/env"
)

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
		return types.NewError(codeNotAvailable, err.Error(), waitsFor(ctx, c.SubnetFile, err))
	}
	conf, err := c.delegate(e)
	if err != nil {
		return err
	}
	for _, name := range []string{c.delegateType, c.ipamType} {
		if _, err := invoke.FindInPath(name, filepath.SplitList(args.Path)); err != nil {
			return types.NewError(codeNotAvailable, fmt.Sprintf(
				"plugin %s is not in %s: install the CNI plugins there", name, args.Path), "")
		}
	}
	return ask(ctx, invoke.DelegateStatus, sinceStatus, c.delegateType, args.Path, conf)
}
