package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// plant puts what is not ours on a host, and subnet.env on a small disk.
const plant = `set -e
mkdir -p /run/flannel
mount -t tmpfs -o size=64k tmpfs /run/flannel
ip link add foreign0 type veth peer name foreign1
ip link set foreign1 up
ip link set foreign0 up
ip addr add 203.0.113.1/24 dev foreign0
ip addr add 2001:db8::1/64 dev foreign0 nodad
ip link add foreignvx type vxlan id 4242 dstport 4790 local 203.0.113.1 dev foreign0
ip link set foreignvx up
bridge fdb add 02:00:00:00:42:42 dev foreignvx dst 203.0.113.9
ip neigh add 203.0.113.9 lladdr 02:00:00:00:42:43 nud permanent dev foreign0
ip -6 neigh add 2001:db8::9 lladdr 02:00:00:00:42:43 nud permanent dev foreign0
ip route add 198.51.100.0/24 via 203.0.113.2
ip route add 10.99.0.0/16 via 203.0.113.2 proto static
ip route add 198.51.100.0/24 via 203.0.113.2 table 100
ip -6 route add 2001:db8:1::/48 via 2001:db8::2
ip rule add from 203.0.113.0/24 lookup 100 priority 1000
ip -6 rule add from 2001:db8::/64 lookup 100 priority 1000
nft 'table inet foreign { chain in { type filter hook input priority 10; ip saddr 198.51.100.7 drop; }; }'
for program in iptables ip6tables; do
	$program -N FOREIGN
	$program -A FOREIGN -p udp --dport 4242 -j DROP
	$program -A FORWARD -p udp --dport 4243 -j DROP
	$program -A FORWARD -j FOREIGN
	$program -A FORWARD -i foreign0 -j DROP
	$program -t nat -N FOREIGN
	$program -t nat -A FOREIGN -p tcp --dport 4242 -j REDIRECT --to-ports 4243
	$program -t nat -A PREROUTING -p tcp --dport 4244 -j RETURN
	$program -t nat -A PREROUTING -i foreign0 -j FOREIGN
done
`

// show prints all of that, sorted where the kernel's order means nothing.
const show = `
ip -o addr show dev foreign0 | sed 's/valid_lft.*//'
ip -o link show foreign0; ip -o -d link show foreignvx
bridge fdb show dev foreignvx | sort
(ip neigh show dev foreign0 nud permanent; ip -6 neigh show dev foreign0 nud permanent) | sort
(ip route show dev foreign0 | grep -v default; ip route show table 100; ip -6 route show dev foreign0 proto boot) | sort
ip rule; ip -6 rule
nft list table inet foreign
(iptables-save; ip6tables-save) | grep -e '^[*]' -e '^-A' | grep -v FLANNEL`

// deleteRules deletes all our packet filter rules one after the other, beginning
// with any. The daemon may restore some meanwhile.
func deleteRules(ctx context.Context, s scene) error {
	const list = `for program in iptables ip6tables; do for table in nat filter; do
		$program-save -t $table | sed -n "s/^-A\(.*--comment \"flanneld \)/$program -w -t $table -D\1/p"
	done; done`
	out, err := s.host.Exec(ctx, "sh", "-c", list)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i := range lines {
		if err := shell(lines[(s.drawn.number+i)%len(lines)])(ctx, s); err != nil {
			return err
		}
		if err := pause(ctx, time.Duration(s.drawn.number%100)*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// foreignRules inserts or deletes rules of somebody else, in front of ours and
// behind the first one of each chain.
func foreignRules(command string) act {
	var lines []string
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, place := range []string{"-t nat %s POSTROUTING", "-t nat %s FLANNEL-POSTRTG", "-t filter %s FORWARD", "-t filter %s FLANNEL-FWD"} {
			for i, port := range []string{"4245", "4246"} {
				at := ""
				if command == "-I" {
					at = fmt.Sprint(i + 1)
				}
				lines = append(lines, fmt.Sprintf("%s -w "+place+" %s -p udp --dport %s -j RETURN", program, command, at, port))
			}
		}
	}
	return commands(lines...)
}

// rules prints our packet filter rules.
const rules = `(iptables-save; ip6tables-save) | grep -e '^[*]' -e '^-A.*FLANNEL'`
