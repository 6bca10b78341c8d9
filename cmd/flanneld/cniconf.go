package main

import (
	"flannel/internal/health"
	"flannel/internal/install"
)

// cniConfInstaller returns what installs the CNI network configuration when
// subnet.env is there, or nil when nobody asked for it. The runtime takes pods
// from then on.
func (d *daemon) cniConfInstaller() func() error {
	if d.options.cniConf == "" {
		return nil
	}
	check := d.health.Add(health.Required, "CNI configuration", "not installed yet")
	return func() error {
		if err := install.Conf(d.options.cniConf, d.options.cniConfDir); err != nil {
			check.Fail(err.Error())
			d.metrics.Error("cni-conf")
			return err
		}
		check.OK()
		d.log.Info("network configuration installed", "path", d.options.cniConf, "into", d.options.cniConfDir)
		return nil
	}
}
