package kernel

import "time"

// edge is where decisions become actions: the kernel, or a fake in memory.
type edge struct {
	links     linkTable
	addrs     table[addrKey, struct{}]
	fdb       table[fdbKey, fdbValue]
	neighbors table[neighKey, MAC]
	routes    table[routeKey, routeValue]
	// alive reports whether the daemon with this instance runs on the host.
	alive func(instance string) bool
	// fdbAges passes the FDB entries of a device with the time since the last
	// packet that used them.
	fdbAges func(dev int, each func(k fdbKey, unused time.Duration)) error
	// release lets the packets go that wait for an address, or drops them, and
	// forgets the address. Nothing depends on its success.
	release func([]waiting)
	// host returns what this host has.
	host func() (Host, error)
	// findRoutes returns those of the routes that are in the main table,
	// whoever made them.
	findRoutes func(keys []routeKey) (map[routeKey]routeValue, error)
}

// linkTable lists and changes devices.
type linkTable interface {
	List(each func(link)) error
	// Add creates a device that is down. A TUN device has the mark at once:
	// one without it is never touched again.
	Add(d Device, alias string) error
	Change(index int, c linkChange) error
	Delete(index int) error
	// TxChecksum reports whether transmit checksum offload is on.
	TxChecksum(name string) (bool, error)
	TxChecksumOff(name string) error
	// Prepare does once for a device what can fail without harm: it asks for
	// reports of L3 misses and turns off router advertisements.
	Prepare(l link, d Device) error
	// Watch makes events of the watched devices matter. It is called before
	// these events are relied upon.
	Watch() error
}
