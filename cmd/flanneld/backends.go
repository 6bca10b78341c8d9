package main

import (
	"fmt"
	"strings"

	"flannel/backend"
	"flannel/backend/alloc"
	"flannel/backend/hostgw"
	"flannel/backend/udp"
	"flannel/backend/vxlan"
	"flannel/subnet"
)

// backends are the types that Backend.Type may name.
func backends() backend.Table {
	return backend.Table{
		alloc.Type,
		hostgw.Type,
		udp.Type,
		vxlan.Type,
	}
}

// checkConfig refuses a configuration that no backend can work with. The error
// names its unknown keys too: one of them may be the cause.
func checkConfig(c *subnet.Config) error {
	_, _, err := backends().Parse(c)
	if err != nil && len(c.Warnings) > 0 {
		return fmt.Errorf("%w; %s", err, strings.Join(c.Warnings, "; "))
	}
	return err
}
