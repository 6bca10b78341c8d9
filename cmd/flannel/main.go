// Command flannel is the CNI plugin: it attaches pods to the subnet that
// flanneld has for this node.
package main

import (
	"context"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	cni "github.com/containernetworking/cni/pkg/version"

	"flannel/internal/cniplugin"
	"flannel/internal/version"
)

func main() {
	plugin := cniplugin.Plugin{Stdout: os.Stdout, Stderr: os.Stderr}
	skel.PluginMainFuncs(plugin.Funcs(context.Background()), cni.All, "CNI plugin flannel "+version.String())
}
