package network

import (
	"errors"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/env"
)

// writeSubnetFile tells the CNI plugin what this node has. It is written once
// a pass has ended that left the node itself in order, whatever single peers
// failed.
func (l *looper) writeSubnetFile(r *result) {
	if r.nodeErr() != nil {
		return
	}
	e := env.Env{
		Subnet: env.Gateways(r.own.Subnet),
		MTU:    l.backend.MTU(r.view.Uplink),
		IPMasq: l.IPMasq,
	}
	for f, p := range ipfam.Prefixes(l.config.Network) {
		if r.own.Subnet[f].IsValid() {
			e.Network[f] = []netip.Prefix{p}
		}
	}
	changed, err := env.Write(l.SubnetFile, e)
	if err != nil {
		l.checks.subnetFile.Fail(err.Error())
		l.Metrics.Error("subnet-file")
		r.err = errors.Join(r.err, err)
		return
	}
	l.checks.subnetFile.OK()
	if changed {
		l.Log.Info("subnet file written", "path", l.SubnetFile, "subnet", subnet.SubnetString(r.own.Subnet), "mtu", e.MTU)
	}
}
