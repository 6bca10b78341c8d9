package network

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"flannel/backend"
	"flannel/internal/health"
	"flannel/internal/ipfam"
)

// Status is what /status shows: this node, its uplink and each peer.
type Status struct {
	Backend string `json:"backend"`
	// Port is the UDP port of the backend; absent if it has none.
	Port    int            `json:"port,omitempty"`
	Network []netip.Prefix `json:"network"`
	Lease   LeaseStatus    `json:"lease"`
	Uplink  UplinkStatus   `json:"uplink"`
	Devices []DeviceStatus `json:"devices"`
	// Peers lists each peer once per family.
	Peers []Peer `json:"peers"`
	// Held counts what is kept although the store does not show it.
	Held int `json:"held"`
	// Notes are what /readyz names although the node is ready.
	Notes    []health.Notice `json:"notes"`
	LastPass PassStatus      `json:"lastPass"`
}

// LeaseStatus is the node's own lease.
type LeaseStatus struct {
	Name     string         `json:"name"`
	Subnet   []netip.Prefix `json:"subnet"`
	PublicIP []netip.Addr   `json:"publicIP"`
	// Expires is absent when the lease does not expire.
	Expires *time.Time `json:"expires,omitempty"`
}

// UplinkStatus is the interface that carries the overlay.
type UplinkStatus struct {
	Name string       `json:"name"`
	MTU  int          `json:"mtu"`
	Addr []netip.Addr `json:"addr"`
	// Why is how it was found: the flag, or the default route.
	Why string `json:"why,omitempty"`
	// Problem is why the uplink is gone; the rest is then what was used
	// last.
	Problem string `json:"problem,omitempty"`
}

// DeviceStatus is a device of this overlay.
type DeviceStatus struct {
	Name string `json:"name"`
	MTU  int    `json:"mtu"`
}

// Peer is how one peer is reached in one family, and why so.
type Peer struct {
	Name   string `json:"name"`
	Family string `json:"family"`
	Subnet string `json:"subnet,omitempty"`
	Via    string `json:"via,omitempty"`
	How    string `json:"how"`
	Why    string `json:"why"`
	// Since is when it began to be reached like this, at the earliest when the
	// daemon was started.
	Since time.Time `json:"since"`
	// Note is what people should know of a peer that is used.
	Note string `json:"note,omitempty"`
	// Probe is what probes of the peer have shown; it is absent if that is
	// nothing yet.
	Probe *backend.Probed `json:"probe,omitempty"`
}

// PassStatus is how the last pass went.
type PassStatus struct {
	At      time.Time `json:"at"`
	Took    string    `json:"took"`
	Changes int       `json:"changes"`
	Error   string    `json:"error,omitempty"`
}

// Status returns the state after the last pass; it reports false before the
// first one.
func (n *Network) Status() (Status, bool) {
	r := n.last.Load()
	if r == nil {
		return Status{}, false
	}
	s := Status{
		Backend: n.config.BackendType,
		Port:    n.port,
		Network: ipfam.List(n.config.Network),
		Lease: LeaseStatus{
			Name: r.own.Name, Subnet: ipfam.List(r.own.Subnet), PublicIP: ipfam.List(r.own.Attrs.PublicIP),
		},
		Uplink:   uplinkStatus(r),
		Devices:  []DeviceStatus{},
		Peers:    make([]Peer, 0, len(r.peers)),
		Held:     r.kept + r.stats.Held,
		Notes:    n.Health.Notices(),
		LastPass: PassStatus{At: r.at, Took: r.took.String(), Changes: r.stats.Changed(), Error: errText(r.err)},
	}
	for _, d := range r.state.Devices {
		s.Devices = append(s.Devices, DeviceStatus{d.Name, d.MTU})
	}
	if !r.own.Expires.IsZero() {
		s.Lease.Expires = &r.own.Expires
	}
	notes := make(map[peerKey]string, len(r.records.Notes))
	for _, note := range r.records.Notes {
		key := peerKey{note.Lease.Name, note.Family().String()}
		if notes[key] != "" {
			notes[key] += "; "
		}
		notes[key] += note.String()
	}
	var probed []backend.Probed
	if n.Probed != nil {
		probed = n.Probed(r.peers)
	}
	for i, p := range r.peers {
		peer := Peer{Name: p.Name, Family: p.Family.String(), How: string(p.How), Why: p.Why, Since: time.Unix(r.since[i], 0).UTC()}
		if p.Subnet.IsValid() {
			peer.Subnet = p.Subnet.String()
		}
		if p.Via.IsValid() {
			peer.Via = p.Via.String()
		}
		peer.Note = notes[peerKey{peer.Name, peer.Family}]
		if probed != nil && probed[i].Verdict != "" {
			peer.Probe = &probed[i]
		}
		s.Peers = append(s.Peers, peer)
	}
	return s, true
}

func uplinkStatus(r *result) UplinkStatus {
	up := r.host.Uplink
	return UplinkStatus{Name: up.Name, MTU: up.MTU, Addr: ipfam.List(up.Addr), Why: up.Why, Problem: errText(r.gone)}
}

// ServeStatus answers /status.
func (n *Network) ServeStatus(w http.ResponseWriter, _ *http.Request) {
	s, ok := n.Status()
	if !ok {
		http.Error(w, "no pass has ended yet; /readyz says what is missing", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(s) // the client is gone when this fails
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
