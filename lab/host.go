package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"flannel/internal/ipfam"
	"flannel/lab/node"
	"flannel/subnet/env"
)

// Uplink is the name of a host's interface on the underlay.
const Uplink = "eth0"

// Host is one machine of the cluster, with a network, a host name and a /run
// of its own.
type Host struct {
	*node.Node
	// Number counts the hosts from 1.
	Number int
	// Link is the underlay link that the host is on, counted from 1.
	Link int
	// Flags are further flags of this host's flanneld, for its next start.
	Flags []string

	// Worker runs pods on this host, nil in a lab without Kubelets.
	Worker *Worker

	lab      *Lab
	flanneld *Daemon

	// mu guards what follows.
	mu      sync.Mutex
	daemons []*Daemon
	pods    []*Pod
}

func newHost(l *Lab, number int) (*Host, error) {
	n, err := node.NewHost(fmt.Sprintf("host%d", number))
	if err != nil {
		return nil, err
	}
	h := &Host{Node: n, Number: number, Link: l.options.LinkOf(number), lab: l}
	h.flanneld = newDaemon(h, DaemonOptions{})
	if err := h.setup(); err != nil {
		n.Close()
		return nil, fmt.Errorf("set up %s: %w", h.Name, err)
	}
	return h, nil
}

func (h *Host) setup() error {
	if err := enableForwarding(h.Node); err != nil {
		return err
	}
	return h.ConnectUplink()
}

// ConnectUplink makes the host's interface on the underlay with its addresses
// and default routes, also after the interface was deleted.
func (h *Host) ConnectUplink() error {
	if err := h.lab.connect(cable{link: h.Link, port: h.port(), node: h.Node, name: Uplink}); err != nil {
		return err
	}
	return h.ConfigureUplink()
}

// ConfigureUplink puts the addresses and default routes on the uplink that are
// missing, for instance after it was set down.
func (h *Host) ConfigureUplink() error {
	fs := h.lab.options.Families
	if err := addAddresses(h.Handle, Uplink, fs.addresses(h.Link, firstHost+h.Number)); err != nil {
		return err
	}
	return addDefaultRoutes(h.Handle, fs.addresses(h.Link, routerNumber))
}

// port is the name of the host's interface on the bridge.
func (h *Host) port() string { return h.Name }

// Unplug pulls the cable out of the switch: the uplink loses its carrier.
func (h *Host) Unplug() error { return setUp(h.lab.underlay.Handle, h.port(), false) }

// Plug puts the cable back.
func (h *Host) Plug() error { return setUp(h.lab.underlay.Handle, h.port(), true) }

// Addr returns the uplink's address that the lab gave it, or the zero Addr.
func (h *Host) Addr(f ipfam.Family) netip.Addr {
	return h.lab.options.Families.addresses(h.Link, firstHost+h.Number)[f].Addr()
}

// Env reads the host's subnet.env.
func (h *Host) Env() (env.Env, error) { return h.readEnv(DefaultSubnetFile) }

func (h *Host) readEnv(path string) (e env.Env, err error) {
	err = h.Do(func() (err error) {
		e, err = env.Read(path)
		return err
	})
	if err != nil {
		return e, fmt.Errorf("%s: %w", h.Name, err)
	}
	return e, nil
}

// Subnet returns the host's subnets from its subnet.env, without host bits.
func (h *Host) Subnet() (ipfam.Pair[netip.Prefix], error) {
	e, err := h.Env()
	return e.Masked(), err
}

// StartFlanneld starts the host's flanneld and does not wait for it.
func (h *Host) StartFlanneld() error {
	h.flanneld.options.Flags = h.Flags
	return h.flanneld.Start()
}

// Flanneld returns the host's first daemon, running or not.
func (h *Host) Flanneld() *Daemon { return h.flanneld }

// WaitReady waits until the host's flanneld is ready.
func (h *Host) WaitReady(ctx context.Context) error { return h.flanneld.WaitReady(ctx) }

// Stop ends the host's flanneld with SIGTERM and waits for it.
func (h *Host) Stop() error { return h.flanneld.Stop() }

// Kill ends the host's flanneld with SIGKILL and waits for it.
func (h *Host) Kill() error { return h.flanneld.Kill() }

// Log returns what the host's flanneld has written since the lab began.
func (h *Host) Log() string { return h.flanneld.Log() }

// StartDaemon starts a further flanneld on the host.
func (h *Host) StartDaemon(o DaemonOptions) (*Daemon, error) {
	d := newDaemon(h, o)
	h.mu.Lock()
	h.daemons = append(h.daemons, d)
	h.mu.Unlock()
	return d, d.Start()
}

// Pods returns the host's pods in the order in which they were added.
func (h *Host) Pods() []*Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.pods)
}

// Interface returns an interface of the host by its name.
func (h *Host) Interface(name string) (netlink.Link, error) { return h.Handle.LinkByName(name) }

func (h *Host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	if h.Worker != nil {
		keep(h.Worker.close())
	}
	for _, d := range append(h.daemons, h.flanneld) {
		keep(d.Stop())
	}
	for _, p := range h.pods {
		keep(p.Close())
	}
	keep(h.Node.Close())
	return first
}
