package fastpath

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"flannel/backend"
	"flannel/fastpath/conntrack"
	"flannel/internal/loop"
	"flannel/kernel"
	"flannel/kernel/rtnl"
)

const (
	// aliveFor is for how long packets are fast without a sign of the daemon.
	aliveFor   = 5 * time.Second
	aliveEvery = time.Second
	// peerPlaces is the least room for peers.
	peerPlaces = 1024
	linkBuffer = 1 << 20
)

// session is the programs in the kernel, loaded for one setup.
type session struct {
	owner   *FastPath
	look    *look
	setup   setup
	objects bpfObjects
	// ours are the programs' ids.
	ours    map[ebpf.ProgramID]bool
	reports *ringbuf.Reader
	table   *conntrack.Conn
	tracker *tracker
	// fixed are the links to the uplink and our device; pods those to the devices
	// of pods. Only run touches them.
	fixed []link.Link
	pods  map[uint32][]link.Link
	addrs map[netip.Addr]kernel.MAC
}

func newSession(f *FastPath, l *look, want setup) (*session, error) {
	s := &session{owner: f, look: l, setup: want, ours: map[ebpf.ProgramID]bool{}, pods: map[uint32][]link.Link{}}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) open() (err error) {
	places := uint32(peerPlaces)
	for places < uint32(2*len(s.owner.peers())) {
		places *= 2
	}
	if err := s.load(places); err != nil {
		return err
	}
	if s.reports, err = ringbuf.NewReader(s.objects.Reports); err != nil {
		return err
	}
	o := s.owner.options
	if s.table, err = conntrack.Dial(o.Namespace); err != nil {
		return err
	}
	s.tracker = newTracker(o.Log, o.Hold, s.table, &s.objects, newPeerTable(places))
	return nil
}

// load loads the programs for the setup.
func (s *session) load(places uint32) error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	spec.Maps[bpfMapPeers].MaxEntries = places
	values := map[string]any{
		bpfVarHold:      uint64(s.owner.options.Hold),
		bpfVarUplink:    uint32(s.setup.uplink),
		bpfVarBridge:    uint32(s.setup.bridge),
		bpfVarPodMtu:    uint32(s.setup.podMTU),
		bpfVarBridgeMac: s.setup.bridgeMAC,
		bpfVarPortFirst: s.setup.ports[0],
		bpfVarPortCount: s.setup.ports[1],
	}
	if w := s.setup.wires[bpfFormatVXLAN4]; w.index != 0 {
		values[bpfVarVxlanPort] = wireOrder(uint16(w.wire.Port))
		values[bpfVarVxlanVni] = wireOrder32(uint32(w.wire.VNI) << 8)
		values[bpfVarVxlanMac] = w.wire.MAC
		// The last word of an IPv4 address is the address.
		values[bpfVarVxlanLocal] = words(w.wire.Local)[3]
	}
	if s.setup.wires[bpfFormatPLAIN].index != 0 {
		values[bpfVarPlain] = uint32(1)
	}
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := spec.LoadAndAssign(&s.objects, nil); err != nil {
		return err
	}
	for _, p := range []*ebpf.Program{s.objects.FromPod, s.objects.ToPod, s.objects.FromUplink, s.objects.FromDevice, s.objects.ToPeer} {
		info, err := p.Info()
		if err != nil {
			return err
		}
		if id, ok := info.ID(); ok {
			s.ours[id] = true
		}
	}
	return nil
}

// detachAll ends the fast path; what is in the maps stays.
func (s *session) detachAll() {
	for device := range s.pods {
		s.detach(device)
	}
	for _, l := range s.fixed {
		_ = l.Close() // the kernel detaches it with the descriptor
	}
	s.fixed = nil
}

// Close detaches everything.
func (s *session) Close() {
	s.detachAll()
	if s.reports != nil {
		_ = s.reports.Close()
	}
	if s.table != nil {
		_ = s.table.Close()
	}
	_ = s.objects.Close()
}

// attach attaches a program to a device.
func (s *session) attach(device int, p *ebpf.Program, at ebpf.AttachType) (l link.Link, err error) {
	err = rtnl.Inside(s.owner.options.Namespace, func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: device, Program: p, Attach: at})
		return err
	})
	return l, err
}

// fixture is a program at a device of the host.
type fixture struct {
	device  int
	program *ebpf.Program
	at      ebpf.AttachType
}

func (s *session) fixtures() []fixture {
	list := []fixture{
		{s.setup.uplink, s.objects.FromUplink, ebpf.AttachTCXIngress},
		{s.setup.uplink, s.objects.ToPeer, ebpf.AttachTCXEgress},
	}
	if device := s.setup.wires[bpfFormatDEVICE].index; device != 0 {
		list = append(list,
			fixture{device, s.objects.FromDevice, ebpf.AttachTCXIngress},
			fixture{device, s.objects.ToPeer, ebpf.AttachTCXEgress})
	}
	return list
}

func (s *session) attachFixed() error {
	for _, f := range s.fixtures() {
		found, err := s.look.foreign(f.device, s.ours)
		if err != nil {
			return fmt.Errorf("look for programs of others: %w", err)
		}
		if found {
			return fmt.Errorf("device %d has programs of others: `bpftool net show dev` names them", f.device)
		}
		l, err := s.attach(f.device, f.program, f.at)
		if err != nil {
			return fmt.Errorf("attach to device %d: %w", f.device, err)
		}
		s.fixed = append(s.fixed, l)
	}
	return nil
}

// run keeps the programs attached until ctx ends, something breaks, or the setup is
// another one.
func (s *session) run(ctx context.Context, attached func()) error {
	if err := s.alive(); err != nil {
		return err
	}
	// Entries that begin after the subscription end with an event.
	subscribed := loop.NewSignal()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.read(ctx) })
	group.Go(func() error {
		started := func() error {
			defer subscribed.Send()
			return s.start()
		}
		return conntrack.Destroyed(ctx, s.owner.options.Namespace, started, s.tracker.clear, s.tracker.destroyed)
	})
	group.Go(func() error { return s.listen(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-subscribed:
		}
		return s.keep(ctx, attached)
	})
	return group.Wait()
}

// start makes the tracker know the peers and what was there before.
func (s *session) start() error {
	if err := s.refreshPeers(s.owner.peers()); err != nil {
		return err
	}
	return s.tracker.start()
}

// keep follows the host and the peers, and tells the programs that it does.
func (s *session) keep(ctx context.Context, attached func()) error {
	alive, look := time.NewTicker(aliveEvery), time.NewTicker(lookEvery)
	defer alive.Stop()
	defer look.Stop()
	if err := s.attachFixed(); err != nil {
		return err
	}
	if err := s.refresh(); err != nil {
		return err
	}
	attached()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-alive.C:
			s.tracker.poll()
			if err := s.alive(); err != nil {
				return err
			}
			continue
		case <-look.C:
			s.tracker.sweep(now())
		case <-s.owner.kick:
		}
		if err := s.refresh(); err != nil {
			return err
		}
	}
}

// alive allows packets to be fast for a while.
func (s *session) alive() error { return s.objects.AliveUntil.Set(uint64(now() + aliveFor)) }

// now is the time as the programs have it.
func now() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return time.Duration(t.Nano())
}

// refresh compares the host and the peers with what the programs know.
func (s *session) refresh() error {
	status := s.owner.peers()
	setup, err := s.look.setup(s.owner.options, status)
	if err != nil {
		return err
	}
	if setup.bridgeMAC != s.setup.bridgeMAC {
		// It may be that of a port, and change with the pods.
		if err := s.objects.BridgeMac.Set(setup.bridgeMAC); err != nil {
			return fmt.Errorf("set the MAC of the bridge: %w", err)
		}
		s.setup.bridgeMAC = setup.bridgeMAC
	}
	if setup != s.setup {
		return fmt.Errorf("%w: %+v, was %+v", errChanged, setup, s.setup)
	}
	if err := s.refreshPeers(status); err != nil {
		return err
	}
	return s.refreshPods()
}

func (s *session) refreshPeers(status []backend.PeerStatus) error {
	full, err := s.tracker.setPeers(carriedPeers(status, s.setup.wires), func(c peerChange) error {
		return s.objects.Peers.Put(c.place, c.value)
	})
	if err != nil {
		return fmt.Errorf("write the peers: %w", err)
	}
	if full {
		return fmt.Errorf("%w: there are more peers", errChanged)
	}
	return nil
}

func (s *session) refreshPods() error {
	found, err := s.look.pods(s.setup.bridge)
	if err != nil {
		return fmt.Errorf("look at the pods: %w", err)
	}
	gone := map[uint32]bool{}
	for device := range s.pods {
		if _, ok := found.devices[device]; !ok {
			s.detach(device)
			gone[device] = true
		}
	}
	moved := map[netip.Addr]kernel.MAC{}
	for a, mac := range s.addrs {
		if is, ok := found.addrs[a]; ok && is != mac {
			moved[a] = is
		}
	}
	s.tracker.podsChanged(gone, moved)
	if s.addrs == nil {
		s.addrs = map[netip.Addr]kernel.MAC{}
	}
	maps.Copy(s.addrs, found.addrs)
	for device, name := range found.devices {
		if err := s.attachPod(device); err != nil {
			s.owner.options.Log.Debug("pod left out", "dev", name, "err", err)
		}
	}
	return nil
}

func (s *session) attachPod(device uint32) error {
	found, err := s.look.foreign(int(device), s.ours)
	if err != nil {
		return err
	}
	if found {
		s.detach(device)
		s.tracker.podsChanged(map[uint32]bool{device: true}, nil)
		return errors.New("it has programs of others")
	}
	if s.pods[device] != nil {
		return nil
	}
	in, err := s.attach(int(device), s.objects.FromPod, ebpf.AttachTCXIngress)
	if err != nil {
		return err
	}
	out, err := s.attach(int(device), s.objects.ToPod, ebpf.AttachTCXEgress)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	s.pods[device] = []link.Link{in, out}
	return nil
}

func (s *session) detach(device uint32) {
	for _, l := range s.pods[device] {
		_ = l.Close() // the device may be gone
	}
	delete(s.pods, device)
}

// read takes the reports of the programs, and does what is due in between.
func (s *session) read(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.reports.Flush() })
	defer stop()
	var record ringbuf.Record
	for ctx.Err() == nil {
		wait := time.Hour
		if next := s.tracker.due(now()); next > 0 {
			wait = max(next-now(), time.Millisecond)
		}
		s.reports.SetDeadline(time.Now().Add(wait))
		err := s.reports.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ringbuf.ErrFlushed) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read reports of the programs: %w", err)
		}
		r, err := reportOf(record.RawSample)
		if err != nil {
			return err
		}
		s.tracker.seen(r, now())
	}
	return ctx.Err()
}

// listen kicks when something about the host changes that the programs depend on.
func (s *session) listen(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	follow := func(protocol int, groups ...int) func() error {
		return func() error {
			events, err := rtnl.ListenTo(s.owner.options.Namespace, protocol, linkBuffer, groups...)
			if err != nil {
				return err
			}
			defer func() { _ = events.Close() }()
			s.owner.kick.Send()
			for {
				err := events.Read(ctx, func(rtnl.Message) { s.owner.kick.Send() })
				if err != nil && !errors.Is(err, rtnl.ErrOverrun) {
					return err
				}
			}
		}
	}
	group.Go(follow(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE))
	if s.look.xfrm != nil {
		group.Go(follow(unix.NETLINK_XFRM, policyGroup))
	}
	return group.Wait()
}

// policyGroup is XFRMNLGRP_POLICY (linux/xfrm.h).
const policyGroup = 4
