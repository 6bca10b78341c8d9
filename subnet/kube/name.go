package kube

import (
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// nodeName is how this node finds the name of its Node.
type nodeName struct {
	// name is known from the start.
	name string
	// pod and namespace are those of a pod on this node.
	pod, namespace string
}

// chooseName follows the environment: NODE_NAME, else the pod, else the host
// name in lower case.
func chooseName(getenv func(string) string, hostname string) nodeName {
	if name := getenv("NODE_NAME"); name != "" {
		return nodeName{name: name}
	}
	if pod, namespace := getenv("POD_NAME"), getenv("POD_NAMESPACE"); pod != "" && namespace != "" {
		return nodeName{pod: pod, namespace: namespace}
	}
	return nodeName{name: strings.ToLower(strings.TrimSpace(hostname))}
}

// unknown returns why the Node of the pod is not known.
func (n nodeName) unknown(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no pod %s/%s, as POD_NAMESPACE and POD_NAME name it: set both to this daemon's pod, "+
			"or NODE_NAME to the name of its Node; see: kubectl -n %s get pods -o wide", n.namespace, n.pod, n.namespace)
	}
	return fmt.Errorf("the Node of pod %s/%s is not known: %w; see: kubectl -n %s get pod %s -o wide",
		n.namespace, n.pod, plain(err), n.namespace, n.pod)
}

// closeMatches returns the names that may have been meant: the same in another
// case, or the same host with or without its domain.
func closeMatches(name string, names []string) []string {
	short := func(s string) string {
		host, _, _ := strings.Cut(strings.ToLower(s), ".")
		return host
	}
	var out []string
	for _, n := range names {
		if n != name && short(n) == short(name) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out[:min(len(out), mostMatches)]
}

const mostMatches = 5

// notFound returns that there is no Node of this name, and which may be meant.
func notFound(name string, names []string) error {
	text := fmt.Sprintf("there is no Node %q", name)
	switch matches := closeMatches(name, names); {
	case len(matches) > 0:
		text += fmt.Sprintf(", but %s: set NODE_NAME to the name of this node's Node", strings.Join(matches, ", "))
	default:
		text += ": the kubelet creates it when it registers; if the Node has another name, set NODE_NAME"
	}
	return &causeError{reason: "NodeNotFound", text: text + "; see: kubectl get nodes"}
}
