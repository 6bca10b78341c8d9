package network

import (
	"errors"
	"net/netip"
	"os"
	"time"

	"flannel/internal/ipfam"
	"flannel/subnet"
	"flannel/subnet/env"
)

// writeSubnetFile writes for the CNI plugin what this node has, after a pass
// that left the node itself correct in one family at least, whatever single
// peers failed.
func (l *passState) writeSubnetFile(r *result) {
	e, ok := l.subnetEnv(r)
	if !ok {
		return
	}
	// Its state is taken before it is compared, so that later changes are
	// noticed. After it was written both happen again.
	found, _ := os.Lstat(l.SubnetFile)
	changed, err := env.Write(l.SubnetFile, e)
	if changed {
		found, _ = os.Lstat(l.SubnetFile)
		if again, _ := env.Write(l.SubnetFile, e); again {
			found = nil
		}
	}
	l.subnetFileWritten = err == nil
	l.checks.subnetFile.Set(err)
	if err != nil {
		l.Metrics.Error("subnet-file")
		r.err = errors.Join(r.err, err)
		return
	}
	l.subnetFile = found
	l.remember()
	if changed {
		l.Log.Info("subnet file written", "path", l.SubnetFile, "subnet", subnet.Join(r.own.Subnet), "mtu", e.MTU)
	}
	if changed || !l.bridgeSeen {
		l.bridgeSeen = true
		l.readdressBridge(e)
	}
	if l.SubnetFileWritten != nil && !l.fileNotified {
		err := l.SubnetFileWritten()
		l.fileNotified = err == nil
		r.err = errors.Join(r.err, err)
	}
}

// subnetFileEvery is how often the subnet file is checked: no event shows that
// somebody has removed it.
const subnetFileEvery = 2 * time.Second

// subnetFileDue reports whether the subnet file is to be restored. It is restored
// ever more rarely while somebody else, such as a second daemon with the same
// --subnet-file, writes it again and again.
func (l *passState) subnetFileDue(now time.Time) bool {
	if now.Before(l.fileAfter) {
		return false
	}
	if !l.subnetFileTouched() {
		l.fileRetry.Reset()
		return false
	}
	l.fileAfter = now.Add(l.fileRetry.Next())
	return true
}

// subnetFileTouched reports whether the subnet file differs from what was
// written. While it cannot be written, passes are repeated anyway.
func (l *passState) subnetFileTouched() bool {
	if !l.subnetFileWritten {
		return false
	}
	was := l.subnetFile
	is, err := os.Lstat(l.SubnetFile)
	return err != nil || was == nil || !os.SameFile(was, is) || was.Size() != is.Size() || was.Mode() != is.Mode() || !was.ModTime().Equal(is.ModTime())
}

// subnetEnv returns what subnet.env is to hold after a pass; it reports false
// if the file is to stay as it is. A family that is broken keeps what an earlier
// pass has written of it.
func (l *passState) subnetEnv(r *result) (env.Env, bool) {
	e := env.Env{MTU: l.backend.MTU(r.host.Uplink), IPMasq: l.IPMasq}
	var written env.Env
	if r.stats.Broken != (ipfam.Pair[bool]{}) {
		written, _ = env.Read(l.SubnetFile) // a file that cannot be read counts as none
	}
	usable := false
	for f, s := range ipfam.Prefixes(env.Gateways(r.own.Subnet)) {
		if r.stats.Broken[f] {
			e.Subnet[f], e.Network[f] = written.Subnet[f], written.Network[f]
			continue
		}
		e.Subnet[f], e.Network[f] = s, []netip.Prefix{l.config.Network[f]}
		usable = true
	}
	return e, usable && r.planned
}

// bridge is the name that the CNI plugin's bridge has by default.
const bridge = "cni0"

// readdressBridge gives a bridge without pods the present subnet's address, and
// logs that pods have addresses of an earlier one.
func (l *passState) readdressBridge(e env.Env) {
	former, err := l.ReaddressBridge(bridge, e)
	if err != nil {
		l.Log.Warn("bridge not checked", "dev", bridge, "err", err)
	}
	for _, a := range former {
		l.Log.Warn("the bridge has an address outside this node's subnet: its pods are not reached from other nodes; "+
			"delete them, then the bridge follows", "dev", bridge, "addr", a, "subnet", e.Subnet[ipfam.Of(a.Addr())].Masked())
	}
}
