package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"flannel/lab/node"
)

// Etcd is the store of the lab: one real server or a cluster of several, in a
// network namespace of its own on the first link. It can be stopped, started
// and broken at will, as a whole or by its members.
type Etcd struct {
	// Node is the machine that etcd runs on. With its Dial any client reaches
	// the server from the test's own process.
	Node *node.Node
	// Members are the servers. The last one of several has a small disk.
	Members []*EtcdMember

	lab    *Lab
	client *http.Client
}

func newEtcd(l *Lab) (*Etcd, error) {
	n, err := node.NewNetwork("etcd", nil)
	if err != nil {
		return nil, err
	}
	e := &Etcd{Node: n, lab: l, client: &http.Client{Transport: &http.Transport{DialContext: n.Dial}}}
	if err := e.setup(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the machine of etcd: %w", err), e.close())
	}
	return e, nil
}

func (e *Etcd) setup() error {
	for number := range e.lab.options.EtcdMembers {
		m, err := newEtcdMember(e, number)
		if err != nil {
			return err
		}
		e.Members = append(e.Members, m)
	}
	if err := e.lab.connect(cable{link: 1, port: "etcd", node: e.Node, name: Uplink}); err != nil {
		return err
	}
	fs := e.lab.options.Families
	if err := addAddresses(e.Node.Handle, Uplink, fs.addresses(1, etcdNumber)); err != nil {
		return err
	}
	return addDefaultRoutes(e.Node.Handle, fs.addresses(1, routerNumber))
}

// Endpoint returns the URLs that all hosts reach the members under, with a
// comma between them.
func (e *Etcd) Endpoint() string {
	var urls []string
	for _, m := range e.Members {
		urls = append(urls, m.endpoint())
	}
	return strings.Join(urls, ",")
}

func (e *Etcd) initialCluster() string {
	var members []string
	for _, m := range e.Members {
		members = append(members, m.name()+"="+m.peerURL())
	}
	return strings.Join(members, ",")
}

// Start starts the members that do not run and waits until all serve.
func (e *Etcd) Start(ctx context.Context) error {
	if err := e.launch(); err != nil {
		return err
	}
	return e.waitReady(ctx)
}

func (e *Etcd) launch() error {
	for _, m := range e.Members {
		if m.process.running() {
			continue
		}
		if err := m.Start(); err != nil {
			return err
		}
	}
	return nil
}

func (e *Etcd) waitReady(ctx context.Context) error {
	for _, m := range e.Members {
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tool is the path of a program that comes with etcd.
func (e *Etcd) tool(name string) string {
	return filepath.Join(filepath.Dir(e.lab.options.Binaries.Etcd), name)
}

// Stop ends the store. Its data stay. Several members are killed: without a
// quorum the last ones would not end.
func (e *Etcd) Stop() error {
	if len(e.Members) > 1 {
		return e.Kill()
	}
	return e.Members[0].Stop()
}

// Kill ends the store with SIGKILL.
func (e *Etcd) Kill() error { return each(e.Members, (*EtcdMember).Kill) }

// PID returns the process ID of the first member, 0 before its first start.
func (e *Etcd) PID() int { return e.Members[0].process.pid() }

// Log returns everything the members have written.
func (e *Etcd) Log() string { return e.Members[0].process.log() }

// Wipe removes all data of a store that was stopped. The next Start makes
// another cluster, with another ID, that counts its revisions from 1.
func (e *Etcd) Wipe() error { return each(e.Members, (*EtcdMember).wipe) }

// Restore replaces the data of a store that was stopped by a snapshot.
func (e *Etcd) Restore(ctx context.Context, snapshot string) error {
	return each(e.Members, func(m *EtcdMember) error { return m.restore(ctx, snapshot) })
}

func (e *Etcd) close() error {
	e.client.CloseIdleConnections()
	return errors.Join(each(e.Members, (*EtcdMember).close), e.Node.Close())
}
