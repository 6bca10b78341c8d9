package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
	"flannel/lab/sandbox"
)

// socketName is the socket in the folder of the sandbox on which the lab answers
// the other commands: HTTP, with JSON.
const socketName = "lab.sock"

// hostStatus is one host in the answer to /status.
type hostStatus struct {
	Name, Uplink, Subnet, Pods string
	// Missing is why the host is not ready; empty if it is.
	Missing string
}

// cluster is the answer to /kubernetes.
type cluster struct {
	// Kubeconfig is the text of the file, Kubectl the path of the program.
	Kubeconfig, Kubectl string
}

func listen() (net.Listener, error) {
	return net.Listen("unix", filepath.Join(sandbox.Dir(), socketName))
}

// serve answers until ctx ends, and closes the listener.
func serve(ctx context.Context, listener net.Listener, l *lab.Lab) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) { reply(w, statusOf(r.Context(), l), nil) })
	mux.HandleFunc("/namespaces/{node...}", func(w http.ResponseWriter, r *http.Request) {
		spaces, err := namespacesOf(l, r.PathValue("node"))
		reply(w, spaces, err)
	})
	mux.HandleFunc("/kubernetes", func(w http.ResponseWriter, _ *http.Request) {
		c, err := clusterOf(l)
		reply(w, c, err)
	})
	server := http.Server{Handler: mux, ReadHeaderTimeout: answerLimit}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// reply writes an answer. A client that is gone needs none.
func reply(w http.ResponseWriter, answer any, err error) {
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// namespacesOf returns the files of a node's namespaces as this process has
// them open, by the flag of nsenter.
func namespacesOf(l *lab.Lab, name string) (map[string]string, error) {
	n, err := l.Node(name)
	if err != nil {
		return nil, err
	}
	flags := map[int]string{unix.CLONE_NEWNET: "--net", unix.CLONE_NEWUTS: "--uts", unix.CLONE_NEWNS: "--mount"}
	spaces := map[string]string{}
	for _, ns := range n.Namespaces() {
		spaces[flags[ns.Kind]] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File.Fd())
	}
	return spaces, nil
}

func clusterOf(l *lab.Lab) (cluster, error) {
	if l.Kubernetes == nil {
		return cluster{}, errors.New("the lab has no Kubernetes: start one with flannel-lab up 2 --kubernetes")
	}
	text, err := os.ReadFile(l.Kubernetes.Plane.Kubeconfig(kubeplane.Admin))
	return cluster{Kubeconfig: string(text), Kubectl: l.Kubernetes.KubectlPath()}, err
}

func statusOf(ctx context.Context, l *lab.Lab) []hostStatus {
	hosts := make([]hostStatus, len(l.Hosts))
	for i, h := range l.Hosts {
		hosts[i] = hostStatus{Name: h.Name, Uplink: uplinkOf(h), Subnet: "-", Missing: missing(ctx, h.Flanneld())}
		if s, err := h.Subnet(); err == nil {
			hosts[i].Subnet = ipfam.Join(s)
		}
		var pods []string
		for _, p := range h.Pods() {
			pods = append(pods, podAddrs(p))
		}
		hosts[i].Pods = strings.Join(pods, " ")
	}
	return hosts
}

// missing returns in one line why a daemon is not ready.
func missing(ctx context.Context, d *lab.Daemon) string {
	code, body, err := d.Get(ctx, "/readyz")
	switch {
	case err != nil:
		return "no answer"
	case code == http.StatusOK:
		return ""
	}
	_, what, _ := strings.Cut(strings.TrimSpace(body), "\n")
	return strings.ReplaceAll("not ready: "+what, "\n", "; ")
}

func uplinkOf(h *lab.Host) string {
	return addrs(h.Addr)
}

func podAddrs(p *lab.Pod) string {
	_, short, _ := strings.Cut(p.Name, "/")
	return short + "=" + addrs(p.Addr)
}

func addrs[A interface {
	IsValid() bool
	String() string
}](of func(ipfam.Family) A) string {
	var parts []string
	for _, f := range ipfam.All() {
		if a := of(f); a.IsValid() {
			parts = append(parts, a.String())
		}
	}
	return strings.Join(parts, ",")
}
