// Package vxlan plans an overlay over the kernel's vxlan devices, one per
// family: a route, a neighbor entry and an FDB entry per peer.
package vxlan

import (
	"fmt"
	"regexp"

	"flannel/backend"
	"flannel/internal/ipfam"
	"flannel/internal/options"
	"flannel/kernel"
)

const typeName = "vxlan"

// Type has the keys of Config.
var Type = backend.Type{Name: typeName, Keys: readKeys, Traits: backend.Traits{
	Devices:     backend.Devices{Kind: kernel.KindVXLAN, Name: regexp.MustCompile(`^flannel(-v6)?\.[0-9]+$`)},
	Overhead:    overhead,
	PeerEntries: []string{kernel.TableRoutes, kernel.TableNeighbors, kernel.TableFDB},
}}

// Config holds the backend's own keys.
type Config struct {
	VNI int
	// Port is the UDP port; 0 means the kernel's default, 8472.
	Port int
	// MTU of the underlay in bytes; 0 means the uplink's.
	MTU           int
	GBP           bool
	Learning      bool
	DirectRouting bool
	// ChecksumOffload false turns off transmit checksum offload on the device.
	ChecksumOffload bool
	// OnDemand has the entries of a peer in the kernel only while somebody
	// talks to it.
	OnDemand bool
}

// maxVNI is the largest network identifier (RFC 7348, section 5: 24 bits).
const maxVNI = 1<<24 - 1

// maxName is the longest interface name (linux/if.h, IFNAMSIZ less the zero).
const maxName = 15

func readKeys(o *options.Object, families ipfam.Pair[bool]) backend.Config {
	c := Config{VNI: 1, ChecksumOffload: true}
	o.Int("VNI", &c.VNI, 1, maxVNI)
	o.Int("Port", &c.Port, 0, 65535)
	o.Int("MTU", &c.MTU, 0, 65535)
	o.Bool("GBP", &c.GBP)
	o.Bool("Learning", &c.Learning)
	o.Bool("DirectRouting", &c.DirectRouting)
	o.Bool("ChecksumOffload", &c.ChecksumOffload)
	o.Bool("OnDemand", &c.OnDemand)
	for f, on := range families.Each() {
		if name := deviceName(f, c.VNI); on && len(name) > maxName {
			o.Refuse("VNI", fmt.Sprint(c.VNI), fmt.Sprintf("fewer digits: the device name %s is longer than %d", name, maxName))
		}
	}
	return c
}

// Needs implements backend.Config.
func (c Config) Needs() backend.Needs {
	return backend.Needs{Peers: true, OnLinkRoutes: c.DirectRouting}
}

// Encapsulation implements backend.Config.
func (c Config) Encapsulation() backend.Encapsulation {
	v := &kernel.VXLAN{VNI: c.VNI, Port: c.Port, Learning: c.Learning, GBP: c.GBP}
	v.Port = v.UDPPort()
	return backend.Encapsulation{Port: v.Port, VXLAN: v}
}

func deviceName(f ipfam.Family, vni int) string {
	return fmt.Sprintf(ipfam.Pair[string]{"flannel.%d", "flannel-v6.%d"}[f], vni)
}
