package udp

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
)

// counters count packets that did not simply pass.
type counters struct {
	noLease, expired, tooBig, malformed, unsent, unwritten atomic.Uint64
	unknownSource, wrongSource, congested                  atomic.Uint64
}

// Counters implements backend.Counter.
func (f *forwarder) Counters() map[string]*atomic.Uint64 {
	c := &f.counters
	return map[string]*atomic.Uint64{
		"no-lease": &c.noLease, "time-exceeded": &c.expired, "too-big": &c.tooBig,
		"malformed": &c.malformed, "unsent": &c.unsent, "unwritten": &c.unwritten,
		"unknown-source": &c.unknownSource, "wrong-source": &c.wrongSource, "congested": &c.congested,
	}
}

// maxSaid bounds what is remembered of addresses that anybody can invent.
const maxSaid = 256

// once remembers what has been said.
type once struct {
	log  *slog.Logger
	mu   sync.Mutex
	said map[netip.Addr]bool
}

// first reports whether an address has not been named before.
func (o *once) first(a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said[a] || len(o.said) >= maxSaid {
		return false
	}
	o.said[a] = true
	return true
}

// strangers names addresses that no lease names.
type strangers struct{ *once }

func newStrangers(log *slog.Logger) strangers {
	return strangers{&once{log: log, said: map[netip.Addr]bool{}}}
}

func (s strangers) say(a netip.Addr, dropped bool) {
	if s.first(a) {
		s.log.Info("packets from an address that no lease names", "src", a, "dropped", dropped)
	}
}

// troubles names addresses to which the kernel does not send.
type troubles struct{ *once }

func newTroubles(log *slog.Logger) troubles {
	return troubles{&once{log: log, said: map[netip.Addr]bool{}}}
}

func (t troubles) say(a netip.Addr, err error) {
	if t.first(a) {
		t.log.Warn("packets not sent", "dst", a, "err", err)
	}
}
