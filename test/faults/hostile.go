package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// hostileRecord is a record that no node writes, and whether hosts use it
// nevertheless.
type hostileRecord struct {
	value string
	used  bool
	use   use
}

// hostileRecords are always the same for the same hosts, in the same order. Their
// subnets are none that a host of the lab gets, or are no subnets.
func (s scene) hostileRecords() (out []hostileRecord, err error) {
	own, peer, err := s.subnetsOfBoth()
	if err != nil {
		return nil, err
	}
	// Each has attributes of its own: only what is wrong with it speaks against it.
	next := func() attrs { return hostileAttrs(len(out)) }
	add := func(key, value string) {
		out = append(out, hostileRecord{value: value, use: use{key: subnetsPrefix + key}})
	}
	free := func() string {
		return strings.TrimPrefix(recordKey(hostileSubnets(len(out))), subnetsPrefix)
	}
	replaced := func(old, now string) { add(free(), strings.ReplaceAll(next().record(s.backend), old, now)) }
	usedBut := func(except int, without ...ipfam.Family) {
		r := &out[len(out)-1]
		r.used, r.use.except = true, except
		for _, f := range without {
			r.use.without[f] = true
		}
	}

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
	for _, public := range []string{
		"ff02::1", "::1", "fe80::1%eth0", "::ffff:172.31.1.50", "172.31.1.50", "fd00:31:0:1::50x", own[ipfam.V6].Addr().String(),
	} {
		replaced(next().public[ipfam.V6], public)
	}
	data, err := s.hostileData()
	if err != nil {
		return nil, err
	}
	// Of a record whose data of one family are wrong the other one is used.
	for f, list := range data.Each() {
		for _, text := range list {
			replaced(fmt.Sprintf(`%q:{"VNI":1,"VtepMAC":%q}`, recordDataKeys[f], next().mac[f]), fmt.Sprintf(`%q:%s`, recordDataKeys[f], text))
			usedBut(nobody, f)
		}
	}

	// Nobody can tell that these are wrong, but for the host whose address it is.
	for _, host := range []int{s.drawn.victim, s.drawn.peer} {
		for f := range next().public.Each() {
			replaced(next().public[f], s.lab.Hosts[host].Addr(f).String())
			usedBut(host)
		}
	}
	replaced(next().public[ipfam.V4], "172.31.1.1") // the router's
	usedBut(nobody)
	replaced(next().public[ipfam.V4], "0.0.0.0") // none: IPv6 alone
	usedBut(nobody)
	replaced(next().public[ipfam.V6], "::") // none: IPv4 alone
	usedBut(nobody)
	add("fd00:10:244:9999::-64", next().record(s.backend))
	usedBut(nobody)
	return out, nil
}

// hostileData are what a node may publish of its vxlan device in one family that
// nobody can use: values, and MACs of this host and of an older lease. Other
// backends don't read it.
func (s scene) hostileData() (out ipfam.Pair[[]string], err error) {
	if s.backend != vxlan {
		return out, nil
	}
	for f, dev := range vxlanDevices.Each() {
		macs := []string{"01:00:5e:00:00:01", "00:00:00:00:00:00", "02:00:00:00:03", "nonsense"}
		for _, h := range []*lab.Host{s.host, s.peer} {
			link, err := h.Interface(dev)
			if err != nil {
				return out, err
			}
			macs = append(macs, link.Attrs().HardwareAddr.String())
		}
		for _, mac := range macs {
			out[f] = append(out[f], fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, mac))
		}
		for n, vni := range []string{"2", "-1", `"1"`, "99999999999999999999"} {
			out[f] = append(out[f], fmt.Sprintf(`{"VNI":%s,"VtepMAC":"02:00:00:00:04:%02x"}`, vni, n))
		}
		out[f] = append(out[f], "[]", "null")
	}
	return out, nil
}

// hostileSubnets are none that a host of the lab gets, for n below 88.
func hostileSubnets(n int) ipfam.Pair[netip.Prefix] {
	return ipfam.Pair[netip.Prefix]{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", 11+n)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:ff%02x::/64", n)),
	}
}

// hostileAttrs are what a host would publish.
func hostileAttrs(n int) attrs {
	return attrs{
		public: ipfam.Pair[string]{fmt.Sprintf("172.31.1.%d", 30+n%70), fmt.Sprintf("fd00:31:0:1::%d", 30+n)},
		mac:    both(fmt.Sprintf("02:00:00:00:03:%02x", n)),
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
				err = s.lab.Etcd.Put(ctx, r.use.key, r.value)
			} else {
				err = s.lab.Etcd.Delete(ctx, r.use.key)
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
			out = append(out, r.use)
		}
	}
	return out, err
}
