// Package status shows people the state of this node: what its daemon knows, or
// without one what it has left in the kernel, and the way of a packet to a peer.
package status

import (
	"cmp"
	"slices"

	"flannel/backend"
	"flannel/network"
)

// Schema is the version of the JSON form of Report and Way. Fields may be added to
// a version; one that changes or goes away makes another.
const Schema = 1

// Source is where a report comes from.
type Source string

// The sources.
const (
	FromDaemon Source = "daemon"
	FromKernel Source = "kernel"
)

// Report is the state of this node.
type Report struct {
	Schema int    `json:"schema"`
	From   Source `json:"from"`
	// Asked is the socket or the health port, and NoAnswer why nothing came from
	// there; it is empty if something did.
	Asked    string `json:"asked"`
	NoAnswer string `json:"noAnswer,omitempty"`
	// Ready is the first line of /readyz, Problems are the others. Without a daemon
	// Problems are what could not be found out.
	Ready    bool     `json:"ready"`
	Problems []string `json:"problems"`
	// Status is /status; absent until a pass has ended. Without a daemon it is
	// what subnet.env and the kernel show.
	Status *network.Status `json:"status,omitempty"`
	// Devices are those of the overlay with what they have counted; absent if the
	// kernel was not asked.
	Devices []Device `json:"devices,omitempty"`

	backends backend.Table
}

// NewReport returns an empty report. The devices of these types are the overlay's.
func NewReport(backends backend.Table) *Report {
	return &Report{Schema: Schema, Problems: []string{}, backends: backends}
}

// Device is an interface of this host and what it has counted.
type Device struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	MTU  int    `json:"mtu"`
	Up   bool   `json:"up"`
	// VNI and Port are those of a vxlan device.
	VNI  int `json:"vni,omitempty"`
	Port int `json:"port,omitempty"`

	RxPackets uint64 `json:"rxPackets"`
	RxBytes   uint64 `json:"rxBytes"`
	TxPackets uint64 `json:"txPackets"`
	TxBytes   uint64 `json:"txBytes"`
}

// Sorted returns the peers of a status, those that are bad first, then by name and
// family. Silent peers stay among the others: they may be many, and fine.
func Sorted(peers []network.Peer) []network.Peer {
	out := slices.Clone(peers)
	slices.SortStableFunc(out, func(a, b network.Peer) int {
		return cmp.Or(cmp.Compare(min(Judge(a), Unsure), min(Judge(b), Unsure)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Family, b.Family))
	})
	return out
}
