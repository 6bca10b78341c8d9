package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"flannel/internal/ipfam"
)

// hostileRecord is a record that no node writes: its key below subnetsPrefix, its
// value, and whether hosts use it nevertheless, all but the one with the number
// except.
type hostileRecord struct {
	key, value string
	used       bool
	except     int
}

// hostileRecords are always the same for the same hosts, in the same order. Their
// subnets are none that a host of the lab gets, or are no subnets.
func (s scene) hostileRecords() (out []hostileRecord, err error) {
	own, err := s.subnetsAtStart(s.drawn.victim)
	if err != nil {
		return nil, err
	}
	peer, err := s.subnetsAtStart(s.drawn.peer)
	if err != nil {
		return nil, err
	}
	// Each has attributes of its own: only what is wrong with it speaks against it.
	next := func() attrs { return hostileAttrs(len(out)) }
	add := func(key, value string) { out = append(out, hostileRecord{key: key, value: value}) }
	free := func() string { return fmt.Sprintf("10.244.%d.0-24&fd00:10:244:ff%02x::-64", 200+len(out), len(out)) }
	replaced := func(old, now string) { add(free(), strings.ReplaceAll(next().record(s.backend), old, now)) }
	usedBut := func(except int) { out[len(out)-1].used, out[len(out)-1].except = true, except }

	// Subnets of others, parts of them and more than them.
	for _, subnets := range []ipfam.Pair[string]{
		{dashed(own[ipfam.V4], 23), ""}, {dashed(own[ipfam.V4], 25), ""}, {dashed(own[ipfam.V4], 32), ""},
		{dashed(peer[ipfam.V4], 22), ""}, {dashed(peer[ipfam.V4], 25), ""},
		{"10.244.253.0-24", dashed(own[ipfam.V6], 64)}, {"10.244.254.0-24", dashed(peer[ipfam.V6], 65)},
	} {
		add(strings.Trim(subnets[ipfam.V4]+"&"+subnets[ipfam.V6], "&"), next().record(s.backend))
	}
	for _, key := range []string{
		"0.0.0.0-0", "10.244.0.0-16", "10.245.1.0-24", "172.31.0.0-16", "10.244.249.0-33", "10.244.249.0", "10.244.249.0-24&::-0",
		"10.244.249.0-24&fd00:31:0:1::-64", "10.244.249.0-24&fd00:10:244::-not", "10.244.248.0-24&10.244.249.0-24", "10.244.249.0-24\x00",
		"10.244.249.0-24\n", "../config/10.244.249.0-24", "10.244.248.0-24/10.244.249.0-24", "%31%30.244.249.0-24", "nonsense", "",
	} {
		add(key, next().record(s.backend))
	}
	for _, value := range []string{
		"", "not JSON", "[[[[[[[[[[", strings.Repeat("[", 4000) + strings.Repeat("]", 4000),
		`{"PublicIP":"172.31.1.50","BackendType":"` + s.backend + `","BackendData":"` + strings.Repeat("x", 100_000) + `"}`,
	} {
		add(free(), value)
	}
	for _, public := range []string{
		"224.0.0.1", "255.255.255.255", "127.0.0.1", "::ffff:172.31.1.50", "172.31.1.50\\u0000", "172.31.1.50x", own[ipfam.V4].Addr().String(),
	} {
		replaced(next().public[ipfam.V4], public)
	}
	replaced(s.backend, "$(reboot)")
	replaced(s.backend, "alloc")
	if s.backend == vxlan {
		for _, mac := range []string{"01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "nonsense"} {
			replaced(next().mac, mac)
		}
		replaced(`"VNI":1`, `"VNI":2`)
		replaced(`"VNI":1`, `"VNI":99999999999999999999`)
	}

	// Nobody can tell that these are wrong, but for the host whose address it is.
	replaced(next().public[ipfam.V4], s.host.Addr(ipfam.V4).String())
	usedBut(s.drawn.victim)
	replaced(next().public[ipfam.V4], "172.31.1.1") // the router's
	usedBut(nobody)
	replaced(next().public[ipfam.V4], "0.0.0.0") // none: IPv6 alone
	usedBut(nobody)
	add("fd00:10:244:9999::-64", next().record(s.backend))
	usedBut(nobody)
	return out, nil
}

// hostileAttrs are what a host would publish.
func hostileAttrs(n int) attrs {
	return attrs{
		public: ipfam.Pair[string]{fmt.Sprintf("172.31.1.%d", 30+n), fmt.Sprintf("fd00:31:0:1::%d", 30+n)},
		mac:    fmt.Sprintf("02:00:00:00:03:%02x", n),
	}
}

// dashed is how keys have the start of a subnet with another length.
func dashed(p netip.Prefix, bits int) string {
	return strings.ReplaceAll(netip.PrefixFrom(p.Addr(), bits).Masked().String(), "/", "-")
}

// hostile puts or deletes the records.
func hostile(put bool) act {
	return func(ctx context.Context, s scene) error {
		records, err := s.hostileRecords()
		if err != nil {
			return err
		}
		for _, r := range records {
			if put {
				err = s.lab.Etcd.Put(ctx, subnetsPrefix+r.key, r.value)
			} else {
				err = s.lab.Etcd.Delete(ctx, subnetsPrefix+r.key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func usedHostile(s scene) (out []use, err error) {
	records, err := s.hostileRecords()
	for _, r := range records {
		if r.used {
			out = append(out, use{subnetsPrefix + r.key, r.except})
		}
	}
	return out, err
}
