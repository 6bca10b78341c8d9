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
		l.Log.Info("subnet file written", "path", l.SubnetFile, "subnet", subnet.Join(r.own.Subnet), "mtu", e.MTU)
	}
	if changed || !l.bridgeSeen {
		l.bridgeSeen = true
		l.readdressBridge(e)
	}
	if l.SubnetFileWritten != nil && !l.subnetFileTold {
		err := l.SubnetFileWritten()
		l.subnetFileTold = err == nil
		r.err = errors.Join(r.err, err)
	}
}

// bridge is the name that the CNI plugin's bridge has by default.
const bridge = "cni0"

// readdressBridge gives a bridge without pods the present subnet's address, and
// tells of pods that have addresses of an earlier one.
func (l *looper) readdressBridge(e env.Env) {
	former, err := l.ReaddressBridge(bridge, e)
	if err != nil {
		l.Log.Warn("bridge not looked at", "dev", bridge, "err", err)
	}
	for _, a := range former {
		l.Log.Warn("the bridge has an address outside this node's subnet: its pods are not reached from other nodes; "+
			"delete them, then the bridge follows", "dev", bridge, "addr", a, "subnet", e.Subnet[ipfam.Of(a.Addr())].Masked())
	}
}
