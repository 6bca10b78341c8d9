package main

import (
	"fmt"
	"strings"

	"flannel/internal/atomicfile"
	"flannel/lab"
)

// showCluster tells what a person can do with nodes that have no network yet.
func showCluster(p place) int {
	var got cluster
	err := p.ask("/kubernetes", &got)
	if err == nil {
		err = atomicfile.Write(p.kubeconfigPath(), []byte(got.Kubeconfig), 0o600)
	}
	if err != nil {
		return fail(1, err)
	}
	tool := "flannel-lab kubectl"
	if p.name != defaultName {
		tool += " --name " + p.name
	}
	fmt.Printf(`The nodes have no pod network yet. They have an image %[2]s with this build of flanneld.

  %[1]s apply -f Documentation/kube-flannel.yml
  %[1]s get nodes,pods -A
  %[1]s run pod --image=%[3]s
  %[1]s exec -it pod -- sh

kubeconfig: %[4]s
`, tool, lab.FlannelImage, lab.TestpodImage, p.kubeconfigPath())
	return 0
}

// kubectl replaces this process by kubectl, in the network of the control plane
// and with the files and the terminal of the caller.
func kubectl(args []string) int {
	fs := newFlags("kubectl", "kubectl [--name NAME] ARG...", "Runs kubectl against a lab that is up with --kubernetes. What follows the first\nargument is kubectl's.")
	name := fs.String("name", defaultName, "`name` of the lab")
	own, rest := split(args)
	if _, code, ok := parse(fs, own, 0); !ok {
		return code
	}
	p, err := placeOf(*name)
	if err != nil {
		return fail(2, err)
	}
	var got cluster
	if err := p.ask("/kubernetes", &got); err != nil {
		return fail(1, err)
	}
	return fail(1, p.enter(lab.Control, []string{"--net"}, append([]string{got.Kubectl, "--kubeconfig=" + p.kubeconfigPath()}, rest...)))
}

// split separates a leading --name, or --help, from the arguments of kubectl.
func split(args []string) (own, rest []string) {
	n := 0
	if len(args) > 0 {
		switch arg := args[0]; {
		case arg == "--name":
			n = min(2, len(args))
		case arg == "--help", strings.HasPrefix(arg, "--name="):
			n = 1
		}
	}
	return args[:n], args[n:]
}
