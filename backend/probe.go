package backend

import (
	"net/netip"
	"time"
)

// Probe is what of a peer answers an echo request if the path there works.
// The zero Probe means that nothing does.
type Probe struct {
	// Device is whether the peer's own device has the network address of its
	// subnet.
	Device bool
	// Bridge is whether the bridge of its pods has the address after that. There
	// is no bridge before the first pod.
	Bridge bool
	// OnDemand is whether a probe would put entries into the kernel, and keep
	// them there.
	OnDemand bool
	// MTUKey is whether the key MTU of the Backend object sets the MTU.
	MTUKey bool
	// MTU is the largest packet that the way there is meant to carry, and
	// Overhead what is added to it on the underlay, in bytes.
	MTU, Overhead int32
}

// Addrs returns the addresses that a probe asks, the zero Addr where there is
// none: that of the device and that of the bridge.
func (p Probe) Addrs(subnet netip.Prefix) (device, bridge netip.Addr) {
	first := subnet.Masked().Addr()
	if p.Device {
		device = first
	}
	if next := first.Next(); p.Bridge && subnet.Contains(next) {
		bridge = next
	}
	return device, bridge
}

// Verdict is what probes have shown of the path to a peer.
type Verdict string

// The verdicts. There is none before probes have shown something.
const (
	// Fine: the peer answers, also to packets of the full size.
	Fine Verdict = "fine"
	// Broken: it answered and does not any more, or not to packets of the full
	// size; or no peer answers at all.
	Broken Verdict = "broken"
	// Silent: it has never answered. The way there may be broken, or something
	// drops echo requests.
	Silent Verdict = "silent"
)

// Cause is what keeps a peer from being fine, as far as probes show it.
type Cause string

// The causes.
const (
	// NoAnswer: the peer does not answer, or never has.
	NoAnswer Cause = "no-answer"
	// WayThere: it does not answer, but its own probes arrive here.
	WayThere Cause = "way-there"
	// TooLarge: it answers, but not packets of the full size.
	TooLarge Cause = "too-large"
	// Local: packets do not leave this host.
	Local Cause = "local"
)

// Probed is what probes of a peer have shown.
type Probed struct {
	Verdict Verdict `json:"verdict"`
	// Why is one line for people, and Cause the same for programs; they are empty if
	// nothing is wrong.
	Why   string `json:"why,omitempty"`
	Cause Cause  `json:"cause,omitempty"`
	// At is when the peer was probed last, Answered when it has answered last.
	At       time.Time  `json:"at"`
	Answered *time.Time `json:"answered,omitempty"`
	// RoundTrip is that of the last answer.
	RoundTrip float64 `json:"roundTripSeconds,omitempty"`
	// Largest is the largest packet that reaches a peer which answers small ones
	// only, in bytes; 0 if that is unknown.
	Largest int `json:"largest,omitempty"`
	// WayBack is whether echo requests of the peer arrive here while ours are not
	// answered.
	WayBack bool `json:"wayBackWorks,omitempty"`
}
