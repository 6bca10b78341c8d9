package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"flannel/internal/ipfam"
	"flannel/lab/node"
	"flannel/lab/ping"
	"flannel/subnet/env"
)

// Bridge is the name of the bridge that joins the pods of a host.
const Bridge = "cni0"

// Pod is a network namespace behind the bridge of its host. Its name is that
// of the host, a slash, and its own.
type Pod struct {
	*node.Node
	Host *Host

	addrs ipfam.Pair[netip.Prefix]
}

// AddPod adds a pod with the next addresses of the host's subnets. The bridge
// is made, or given the subnets' gateway addresses, if that is missing.
func (h *Host) AddPod(name string) (*Pod, error) {
	e, err := h.Env()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.ensureBridge(e); err != nil {
		return nil, err
	}
	n, err := node.NewNetwork(h.Name+"/"+name, h.Node)
	if err != nil {
		return nil, err
	}
	p := &Pod{Node: n, Host: h, addrs: nthAddress(e, len(h.pods)+1)}
	if err := p.connect(e, len(h.pods)+1); err != nil {
		n.Close()
		return nil, fmt.Errorf("connect pod %s: %w", p.Name, err)
	}
	h.pods = append(h.pods, p)
	return p, nil
}

// nthAddress returns the n-th addresses after the gateways.
func nthAddress(e env.Env, n int) ipfam.Pair[netip.Prefix] {
	addrs := e.Subnet
	for f, s := range ipfam.Prefixes(e.Subnet) {
		a := s.Addr()
		for range n {
			a = a.Next()
		}
		addrs[f] = netip.PrefixFrom(a, s.Bits())
	}
	return addrs
}

func (h *Host) ensureBridge(e env.Env) error {
	_, err := h.Handle.LinkByName(Bridge)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		err = addUp(h.Node, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: Bridge, MTU: e.MTU, TxQLen: -1}})
	}
	if err != nil {
		return fmt.Errorf("make bridge %s: %w", Bridge, err)
	}
	return addAddresses(h.Handle, Bridge, e.Subnet)
}

func (p *Pod) connect(e env.Env, number int) error {
	h := p.Host
	bridge, err := h.Handle.LinkByName(Bridge)
	if err != nil {
		return err
	}
	veth := netlink.NewVeth(netlink.LinkAttrs{
		Name: fmt.Sprintf("veth%d", number), MTU: e.MTU, MasterIndex: bridge.Attrs().Index, TxQLen: -1,
	})
	veth.PeerName = "eth0"
	veth.PeerMTU = uint32(e.MTU)
	veth.PeerNamespace = netlink.NsFd(p.NetNS().Fd())
	if err := addUp(h.Node, veth); err != nil {
		return err
	}
	if err := setUp(p.Handle, "eth0", true); err != nil {
		return err
	}
	if err := addAddresses(p.Handle, "eth0", p.addrs); err != nil {
		return err
	}
	return addDefaultRoutes(p.Handle, e.Subnet)
}

// Addr returns the pod's address, or the zero Addr when the family is off.
func (p *Pod) Addr(f ipfam.Family) netip.Addr { return p.addrs[f].Addr() }

// Ping sends one echo request to addr and returns how long the reply took. It
// waits until ctx ends, for one second at most.
func (p *Pod) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	c, err := p.openPing(addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	took, err := ping.Once(ctx, c, addr)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.Name, err)
	}
	return took, nil
}

// StartPing sends an echo request to addr every interval. The caller stops the
// series.
func (p *Pod) StartPing(addr netip.Addr, interval time.Duration) (*ping.Series, error) {
	c, err := p.openPing(addr)
	if err != nil {
		return nil, err
	}
	return ping.Start(c, addr, interval), nil
}

// StartPatientPing is StartPing with replies that may take longer than usual.
func (p *Pod) StartPatientPing(addr netip.Addr, interval, patience time.Duration) (*ping.Series, error) {
	c, err := p.openPing(addr)
	if err != nil {
		return nil, err
	}
	return ping.StartPatient(c, addr, interval, patience), nil
}

func (p *Pod) openPing(addr netip.Addr) (c *ping.Conn, err error) {
	if !addr.IsValid() {
		return nil, fmt.Errorf("%s: ping needs an address", p.Name)
	}
	err = p.Do(func() (err error) {
		c, err = ping.Open(ipfam.Of(addr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return c, nil
}
