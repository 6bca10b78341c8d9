package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"flannel/internal/ipfam"
)

// hostile puts or deletes records that no node writes. Their subnets are none
// that a host of the lab gets, or are no subnets.
func hostile(put bool) act {
	return func(ctx context.Context, s scene) error {
		good := another(s)
		// What of this host a peer may claim for itself, and what may not be a peer.
		mine := strings.ReplaceAll(good, "172.31.1.99", s.host.Addr(ipfam.V4).String())
		own, err := s.subnetsAtStart(s.drawn.victim)
		if err != nil {
			return err
		}
		peer, err := s.subnetsAtStart(s.drawn.peer)
		if err != nil {
			return err
		}
		at := func(address string) string { return strings.ReplaceAll(good, "172.31.1.99", address) }
		values := map[string]string{
			"10.244.213.0-24": mine,
			"10.244.214.0-24": at("172.31.1.1"), "10.244.215.0-24": at("0.0.0.0"), "10.244.216.0-24": at("224.0.0.1"),
			"10.244.217.0-24": at("255.255.255.255"), "10.244.218.0-24": at("::ffff:172.31.1.98"), "10.244.219.0-24": at("172.31.1.99\u0000"),
			"10.244.220.0-24": strings.ReplaceAll(good, `"VNI":1`, `"VNI":99999999999999999999`),
			"10.244.221.0-24": strings.ReplaceAll(good, "02:00:00:00:00:99", "01:00:5e:00:00:01"),
			"10.244.222.0-24": strings.ReplaceAll(good, "02:00:00:00:00:99", "00:00:00:00:00:00"),
			"10.244.223.0-24": strings.Repeat("[", 4000) + strings.Repeat("]", 4000),
			"10.244.224.0-24": strings.ReplaceAll(good, s.backend, "$(reboot)"),
			"10.244.225.0-24": `{"PublicIP":"172.31.1.99","PublicIP":"` + s.host.Addr(ipfam.V4).String() + `","BackendType":` + fmt.Sprintf("%q", s.backend) + `}`,
			// Parts of subnets that others have, and more than these.
			dashed(own[ipfam.V4].Addr(), 25): good, dashed(own[ipfam.V4].Addr(), 23): good, dashed(own[ipfam.V4].Addr(), 32): good,
			dashed(peer[ipfam.V4].Addr(), 25): good, dashed(peer[ipfam.V4].Addr(), 22): good,
			"10.244.226.0-24&" + dashed(own[ipfam.V6].Addr(), 64): good, "10.244.227.0-24&" + dashed(peer[ipfam.V6].Addr(), 65): good,
			"10.244.228.0-24&::-0": good, "fd00:10:244:9999::-64": good, "10.244.229.0-24\x00": good, "10.244.230.0-24\n": good,
			"../config/10.244.231.0-24": good, "10.244.232.0-24/10.244.233.0-24": good, "": good, "%31%30.244.234.0-24": good,
			"10.244.200.0-24":                     "not JSON",
			"10.244.201.0-24":                     "",
			"10.244.202.0-24":                     `{"PublicIP":"` + s.host.Addr(ipfam.V4).String() + `x"}`,
			"10.244.203.0-24":                     `{"PublicIP":"127.0.0.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}`,
			"10.244.204.0-24":                     `{"PublicIP":"172.31.1.99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}}`,
			"10.244.205.0-24":                     `{"PublicIP":"172.31.1.99","BackendType":"vxlan","BackendData":"` + strings.Repeat("x", 100_000) + `"}`,
			"10.244.206.0-24":                     `[[[[[[[[[[`,
			"0.0.0.0-0":                           good,
			"172.31.0.0-16":                       good,
			"10.244.0.0-16":                       good,
			"10.245.1.0-24":                       good,
			"10.244.207.0-33":                     good,
			"10.244.208.0":                        good,
			"nonsense":                            good,
			"10.244.209.0-24&fd00:31:0:1::-64":    good,
			"10.244.210.0-24&fd00:10:244::-not":   good,
			"10.244.211.0-24&10.244.212.0-24&x-y": good,
		}
		for key, value := range values {
			key = subnetsPrefix + key
			if put {
				err = s.lab.Etcd.Put(ctx, key, value)
			} else {
				err = s.lab.Etcd.Delete(ctx, key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// dashed is how keys have a prefix.
func dashed(a netip.Addr, bits int) string { return fmt.Sprintf("%s-%d", a, bits) }
