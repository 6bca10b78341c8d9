package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/ipfam"
	"flannel/lab"
	"flannel/subnet"
)

// serve answers requests until ctx ends. It closes the socket.
func serve(ctx context.Context, socket *os.File, l *lab.Lab) error {
	listener, err := net.FileListener(socket)
	socket.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return ctx.Err()
		}
		wg.Go(func() {
			defer conn.Close()
			// A client that is gone needs no answer.
			_ = answer(ctx, conn.(*net.UnixConn), l)
		})
	}
}

func answer(ctx context.Context, conn *net.UnixConn, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return err
	}
	if r.Kubernetes {
		return answerKubernetes(conn, l)
	}
	if r.Enter == "" {
		return send(conn, reply{Hosts: statusOf(ctx, l)}, nil)
	}
	spaces, err := namespacesOf(l, r.Enter)
	if err != nil {
		return send(conn, reply{Error: err.Error()}, nil)
	}
	defer spaces[0].file.Close()
	defer spaces[1].file.Close()
	return send(conn, reply{}, spaces)
}

// namespacesOf returns what a process of the node runs in. The first two
// files are opened here and closed by the caller.
func namespacesOf(l *lab.Lab, name string) ([]namespace, error) {
	n, err := l.Node(name)
	if err != nil {
		return nil, err
	}
	user, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return nil, err
	}
	pid, err := os.Open("/proc/self/ns/pid")
	if err != nil {
		user.Close()
		return nil, err
	}
	spaces := []namespace{{unix.CLONE_NEWUSER, user}, {unix.CLONE_NEWPID, pid}}
	for _, ns := range n.Namespaces() {
		spaces = append(spaces, namespace{ns.Kind, ns.File})
	}
	return spaces, nil
}

func statusOf(ctx context.Context, l *lab.Lab) []hostStatus {
	hosts := make([]hostStatus, len(l.Hosts))
	for i, h := range l.Hosts {
		hosts[i] = hostStatus{Name: h.Name, Uplink: uplinkOf(h), Subnet: "-", Missing: missing(ctx, h.Flanneld())}
		if s, err := h.Subnet(); err == nil {
			hosts[i].Subnet = subnet.Join(s)
		}
		var pods []string
		for _, p := range h.Pods() {
			pods = append(pods, podAddrs(p))
		}
		hosts[i].Pods = strings.Join(pods, " ")
	}
	return hosts
}

// missing says in one line why a daemon is not ready.
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
