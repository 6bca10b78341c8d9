package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/atomicfile"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// showCluster tells what a person can do with nodes that have no network yet.
func showCluster(p place) int {
	got, _, err := p.ask(request{Kubernetes: true})
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
	fmt.Printf(`The nodes have no network yet, and an image %[2]s with this build of flanneld.

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
	got, _, err := p.ask(request{Kubernetes: true})
	if err != nil {
		return fail(1, err)
	}
	_, spaces, err := p.ask(request{Enter: lab.Control})
	if err != nil {
		return fail(1, err)
	}
	for _, s := range spaces {
		if s.kind == unix.CLONE_NEWNET {
			return fail(1, enter([]namespace{s}, append([]string{got.Kubectl, "--kubeconfig=" + p.kubeconfigPath()}, rest...)))
		}
	}
	return fail(1, errors.New("the lab gave no network to enter"))
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

func answerKubernetes(conn *net.UnixConn, l *lab.Lab) error {
	if l.Kubernetes == nil {
		return send(conn, reply{Error: "the lab has no Kubernetes: start one with flannel-lab up 2 --kubernetes"}, nil)
	}
	text, err := os.ReadFile(l.Kubernetes.Plane.Kubeconfig(kubeplane.Admin))
	if err != nil {
		return send(conn, reply{Error: err.Error()}, nil)
	}
	return send(conn, reply{Kubeconfig: string(text), Kubectl: l.Kubernetes.KubectlPath()}, nil)
}
