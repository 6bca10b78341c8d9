package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"flannel/internal/ipfam"
)

// Commands runs programs on the host one after the other. In the lines SUBNET,
// SUBNET6, VTEP and VTEP6 stand for these subnets of a peer and their devices
// in a dual-stack lab, ADDR and ADDR6 for the addresses of the host.
func (h *Host) Commands(ctx context.Context, subnets ipfam.Pair[netip.Prefix], lines ...string) error {
	fill := strings.NewReplacer(
		"SUBNET6", subnets[ipfam.V6].String(), "SUBNET", subnets[ipfam.V4].String(),
		"VTEP6", subnets[ipfam.V6].Addr().String(), "VTEP", subnets[ipfam.V4].Addr().String(),
		"ADDR6", h.Addr(ipfam.V6).String(), "ADDR", h.Addr(ipfam.V4).String(),
	)
	for _, line := range lines {
		if _, err := h.Exec(ctx, strings.Fields(fill.Replace(line))...); err != nil {
			return err
		}
	}
	return nil
}

// DeleteFDB deletes the first FDB entry of the vxlan device of each family.
func (h *Host) DeleteFDB(ctx context.Context) error {
	for _, dev := range []string{"flannel.1", "flannel-v6.1"} {
		out, err := h.Exec(ctx, "bridge", "fdb", "show", "dev", dev)
		if err != nil {
			return err
		}
		fields := strings.Fields(out)
		if len(fields) < 3 || fields[1] != "dst" {
			return fmt.Errorf("no FDB entry of %s in %q", dev, out)
		}
		if _, err := h.Exec(ctx, "bridge", "fdb", "del", fields[0], "dev", dev, "dst", fields[2]); err != nil {
			return err
		}
	}
	return nil
}

// SetUplinkUp sets the uplink up again. The kernel has dropped its IPv6
// address, so the uplink gets that again.
func (h *Host) SetUplinkUp(ctx context.Context) error {
	if _, err := h.Exec(ctx, "ip", "link", "set", Uplink, "up"); err != nil {
		return err
	}
	return h.ConfigureUplink()
}

// LoadAverage returns how many programs the machine was busy with during the
// last minute, 0 if that is unknown.
func LoadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}
