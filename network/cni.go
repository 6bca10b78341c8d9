package network

import (
	"errors"
	"net/netip"

	"flannel/internal/ipfam"
	"flannel/kernel/podbridge"
	"flannel/subnet/env"
)

// tellCNI writes for the CNI plugin what this node has, after a pass that left
// the node itself correct in one family at least, whatever single peers failed.
func (p *passState) tellCNI(r *result) {
	e, ok := p.subnetEnv(r)
	if !ok {
		return
	}
	changed, err := p.n.file.write(e)
	p.n.checks.subnetFile.Set(err)
	if err != nil {
		p.n.Metrics.Error("subnet-file")
		r.err = errors.Join(r.err, err)
		return
	}
	if changed {
		p.n.Log.Info("subnet file written", "path", p.n.SubnetFile, "subnet", ipfam.Join(r.own.Subnet), "mtu", e.MTU)
	}
	if changed || !p.bridgeChecked {
		p.bridgeChecked = true
		p.readdressBridge(e)
	}
	if p.n.SubnetFileWritten != nil && !p.fileNotified {
		err := p.n.SubnetFileWritten()
		p.fileNotified = err == nil
		r.err = errors.Join(r.err, err)
	}
}

// subnetEnv returns what subnet.env is to hold after a pass; it reports false
// if the file is to stay as it is. A family that is broken keeps what an earlier
// pass has written of it.
func (p *passState) subnetEnv(r *result) (env.Env, bool) {
	e := env.Env{MTU: p.n.backend.MTU(r.host.Uplink), IPMasq: p.n.IPMasq}
	var written env.Env
	if r.stats.Broken != (ipfam.Pair[bool]{}) {
		written, _ = env.Read(p.n.SubnetFile) // a file that cannot be read counts as none
	}
	usable := false
	for f, s := range ipfam.Prefixes(env.Gateways(r.own.Subnet)) {
		if r.stats.Broken[f] {
			e.Subnet[f], e.Network[f] = written.Subnet[f], written.Network[f]
			continue
		}
		e.Subnet[f], e.Network[f] = s, []netip.Prefix{p.n.config.Network[f]}
		usable = true
	}
	return e, usable && r.planned
}

// readdressBridge gives a bridge without pods the present subnet's address, and
// logs that pods have addresses of an earlier one.
func (p *passState) readdressBridge(e env.Env) {
	former, err := p.n.ReaddressBridge(podbridge.Name, e)
	if err != nil {
		p.n.Log.Warn("bridge not checked", "dev", podbridge.Name, "err", err)
	}
	for _, a := range former {
		p.n.Log.Warn("the bridge has an address outside this node's subnet: its pods are not reached from other nodes; "+
			"delete them, then the bridge follows", "dev", podbridge.Name, "addr", a, "subnet", e.Subnet[ipfam.Of(a.Addr())].Masked())
	}
}
