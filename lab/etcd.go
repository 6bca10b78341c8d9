package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"flannel/internal/ipfam"
	"flannel/lab/node"
)

const (
	etcdClientPort = "2379"
	etcdPeerURL    = "http://127.0.0.1:2380"
)

// Etcd is the store of the lab: a real server in a network namespace of its
// own on the first link. It can be stopped, started and broken at will.
type Etcd struct {
	// Node is the machine that etcd runs on. With its Dial any client reaches
	// the server from the test's own process.
	Node *node.Node

	lab     *Lab
	data    string
	process process
	client  *http.Client
}

func newEtcd(l *Lab) (*Etcd, error) {
	n, err := node.NewNetwork("etcd", nil)
	if err != nil {
		return nil, err
	}
	e := &Etcd{
		Node: n, lab: l, data: filepath.Join(l.dir, "etcd"),
		process: process{name: "etcd", node: n, logPath: filepath.Join(l.dir, "etcd.log")},
		client:  &http.Client{Transport: &http.Transport{DialContext: n.Dial}},
	}
	if err := e.setup(); err != nil {
		n.Close()
		return nil, fmt.Errorf("set up the machine of etcd: %w", err)
	}
	return e, nil
}

func (e *Etcd) setup() error {
	if err := e.lab.connect(cable{link: 1, port: "etcd", node: e.Node, name: Uplink}); err != nil {
		return err
	}
	fs := e.lab.options.Families
	if err := addAddresses(e.Node.Handle, Uplink, fs.addresses(1, etcdNumber)); err != nil {
		return err
	}
	return addDefaultRoutes(e.Node.Handle, fs.addresses(1, routerNumber))
}

// Endpoint returns the URL that all hosts reach the server under.
func (e *Etcd) Endpoint() string {
	for _, a := range ipfam.Prefixes(e.lab.options.Families.addresses(1, etcdNumber)) {
		return "http://" + net.JoinHostPort(a.Addr().String(), etcdClientPort)
	}
	return ""
}

// Start starts the server and waits until it answers.
func (e *Etcd) Start(ctx context.Context) error {
	if err := e.launch(); err != nil {
		return err
	}
	return e.waitReady(ctx)
}

func (e *Etcd) launch() error {
	binary := e.lab.options.Binaries.Etcd
	if binary == "" {
		return errors.New("the lab was made without an etcd binary")
	}
	return e.process.start([]string{
		binary, "--name=lab", "--data-dir=" + e.data,
		"--listen-client-urls=" + e.Endpoint(), "--advertise-client-urls=" + e.Endpoint(),
		"--listen-peer-urls=" + etcdPeerURL, "--initial-advertise-peer-urls=" + etcdPeerURL,
		"--initial-cluster=lab=" + etcdPeerURL,
		// One member elects itself: there is nobody to wait for.
		"--heartbeat-interval=20", "--election-timeout=200",
		// The data lives as long as the lab.
		"--unsafe-no-fsync", "--log-level=warn",
	}, nil)
}

func (e *Etcd) waitReady(ctx context.Context) error { return e.process.waitReady(ctx, e.healthy) }

func (e *Etcd) healthy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Endpoint()+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Stop ends the server with SIGTERM. Its data stay.
func (e *Etcd) Stop() error { return e.process.stop() }

// Kill ends the server with SIGKILL.
func (e *Etcd) Kill() error { return e.process.kill() }

// Log returns everything the server has written.
func (e *Etcd) Log() string { return e.process.log() }

// Wipe removes all data of a server that was stopped. The next Start makes
// another cluster, with another ID, that counts its revisions from 1.
func (e *Etcd) Wipe() error { return os.RemoveAll(e.data) }

// Restore replaces the data of a server that was stopped by a snapshot.
func (e *Etcd) Restore(ctx context.Context, snapshot string) error {
	if e.lab.options.Binaries.Etcdutl == "" {
		return errors.New("the lab was made without an etcdutl binary")
	}
	if err := e.Wipe(); err != nil {
		return err
	}
	_, err := e.Node.Exec(ctx, e.lab.options.Binaries.Etcdutl, "snapshot", "restore", snapshot,
		"--data-dir="+e.data, "--name=lab",
		"--initial-cluster=lab="+etcdPeerURL, "--initial-advertise-peer-urls="+etcdPeerURL)
	return err
}

func (e *Etcd) close() error {
	e.client.CloseIdleConnections()
	return errors.Join(e.process.kill(), e.Node.Close())
}
