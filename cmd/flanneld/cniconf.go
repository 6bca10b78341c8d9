package main

import (
	"errors"
	"io/fs"
	"os"

	"flannel/internal/install"
)

// cniConfInstaller returns what installs the CNI network configuration when
// subnet.env is there, or nil when nobody asked for it. The runtime takes pods
// from then on.
func (d *daemon) cniConfInstaller() func() error {
	if d.options.cniConf == "" {
		return nil
	}
	check := d.health.Require("CNI configuration", "not installed yet")
	return func() error {
		err := install.Conf(d.options.cniConf, d.options.cniConfDir)
		d.set(check, "cni-conf", err)
		if err != nil {
			return err
		}
		d.log.Info("network configuration installed", "path", d.options.cniConf, "into", d.options.cniConfDir)
		return nil
	}
}

// withdrawCNIConf takes the network configuration away that a former run has
// installed, when there is no subnet.env: so it is after a reboot, and the
// runtime would take pods that cannot be attached. It is installed again with
// subnet.env.
func (d *daemon) withdrawCNIConf() {
	if d.options.cniConf == "" {
		return
	}
	if _, err := os.Stat(d.options.subnetFile); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	removed, err := install.RemoveConf(d.options.cniConfDir)
	if err != nil {
		d.metrics.Error("cni-conf")
		d.log.Warn("network configuration of an earlier run not removed: the runtime accepts pods too early", "err", err)
	}
	if removed {
		d.log.Info("network configuration removed until this node has its subnet", "from", d.options.cniConfDir)
	}
}
