// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Packets of established flows between pods of two hosts, carried past the
 * stack of this host. A packet takes the fast path only while both are true:
 *
 *   - flows has its addresses and ports: the daemon has found, and relaxed, the
 *     conntrack entry of the flow;
 *   - ways has them too, and a packet of the same flow and direction has left
 *     the stack during the last `hold`: what the stack did with that one is done
 *     with this one.
 *
 * The daemon alone writes flows and peers, the programs alone write ways. Every
 * doubt ends in TCX_NEXT: the packet goes to the stack, unchanged.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NEXT -1 /* TCX_NEXT: other programs, then the stack */
#define DROP 2	/* TCX_DROP */
#define REDIRECT 7
#define SECOND 1000000000ULL
#define FAMILY4 2
#define FAMILY6 10
/* Not in the headers of every system that builds this. */
#define LOOKUP_OUTPUT (1U << 1)
#define LOOKUP_SKIP_NEIGH (1U << 2)

char _license[] SEC("license") = "GPL";

/* Set before the programs are loaded. */
volatile const __u64 hold = 30 * SECOND;
volatile const __u32 uplink;	 /* interface indexes */
volatile const __u32 bridge;
volatile const __u32 pod_mtu;	 /* the largest packet that the bridge passes on */
volatile const __u32 plain;	 /* whether peers are reached without encapsulation */
volatile const __be32 vxlan_local;
volatile const __be16 vxlan_port; /* zero: no vxlan over IPv4 */
volatile const __be32 vxlan_vni;  /* as on the wire, with the reserved byte */
volatile const __u8 vxlan_mac[ETH_ALEN];
volatile const __u16 port_first, port_count; /* source ports of vxlan */

/* Written while the programs run. */
volatile __u64 alive_until;	   /* no packet is fast after that */
volatile __u8 bridge_mac[ETH_ALEN]; /* where pods send what is to be routed */

/* Why a packet took which path; the names are in counters.go. */
enum reason {
	FAST,
	NO_FLOW,     /* the daemon has not permitted it */
	NO_WAY,	     /* none has left the stack of late */
	CLOSED,	     /* FIN, RST or SYN was seen */
	FLAGS,	     /* SYN, FIN, RST, or no ACK */
	FRAGMENT,
	OPTIONS,     /* IP options, extension headers */
	TTL,
	MALFORMED,   /* lengths, checksum of the header, version */
	PROTOCOL,    /* neither TCP nor UDP */
	TOO_LARGE,   /* for the device, the path or the bridge */
	PEER,	     /* no such peer any more */
	SOURCE,	     /* the outer source is not the peer's */
	OUTER,	     /* something of the outer headers is unusual */
	LINK,	     /* not addressed to this host */
	ROUTE,	     /* no route, or not over the uplink */
	AWAY,	     /* the daemon has not been heard of */
	FAILED,	     /* the kernel refused to change the packet */
	REASONS,
};
enum direction { OUT, IN, DIRECTIONS };

struct total {
	__u64 packets, bytes;
};

struct address {
	__be32 word[4]; /* IPv4 as ::ffff:0:0/96 */
};

struct key {
	struct address source, destination;
	__be16 source_port, destination_port;
	__u8 protocol;
	__u8 zero[3];
};

/* A flow in one direction that the daemon permits. */
struct flow {
	__u32 peer;	  /* index in peers */
	__u32 generation; /* of that peer */
};

/* What the stack has done with the last packet of a flow in one direction. */
struct way {
	__u64 left;	/* when it left the stack */
	__u64 used;	/* when a packet was fast, to the second */
	__u64 reported; /* when the daemon was told, or when it was closed */
	__u32 device;	/* that it left through */
	__u32 from;	/* the device that it came from */
	__u16 packets;	/* that left the stack, up to REPORT_AFTER */
	__u8 waits;	/* how often the daemon was told in vain */
	__u8 closed;
	__u8 macs[2 * ETH_ALEN]; /* destination and source, as it left */
};

enum format { NONE, PLAIN, DEVICE, VXLAN4 };

struct peer {
	__u32 generation; /* zero: none */
	__u32 format;
	__u32 out;	  /* the device through which its packets leave the stack */
	__u32 in;	  /* the device from which they come to the stack */
	__u32 mtu;	  /* of a packet, before it is encapsulated */
	struct address local, remote; /* outside */
	__u8 macs[2 * ETH_ALEN];      /* inside: the peer's and ours */
};

/* What the daemon is told: a packet of this flow has left the stack. */
struct report {
	struct key key;
	__u32 device; /* through which it left */
	__u32 closed;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct key);
	__type(value, struct way);
} ways SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS * DIRECTIONS);
	__type(key, __u32);
	__type(value, struct total);
} totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} reports SEC(".maps");

/* What Go has to know of but no map holds. */
const struct report *report_type __attribute__((unused));
const enum reason *reason_type __attribute__((unused));
const enum direction *direction_type __attribute__((unused));
const enum format *format_type __attribute__((unused));

static __always_inline void count(struct __sk_buff *skb, enum direction d, enum reason r)
{
	__u32 i = d * REASONS + r;
	struct total *t = bpf_map_lookup_elem(&totals, &i);

	if (t) {
		t->packets++;
		t->bytes += skb->len;
	}
}

/* Counts a packet and returns what becomes of it. REASONS: it is half changed. */
static __always_inline int finish(struct __sk_buff *skb, enum direction d, enum reason r)
{
	count(skb, d, r == REASONS ? FAILED : r);
	return r == FAST ? REDIRECT : r == REASONS ? DROP : NEXT;
}

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The sum of a header that has its checksum in it is 0xffff. */
static __always_inline __u32 sum20(const void *header)
{
	const __u16 *half = header;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += half[i];
	return fold(sum);
}

static __always_inline void mapped(struct address *a, __be32 v4)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = v4;
}

static __always_inline int differ(const __u8 *a, const volatile __u8 *b, const __u32 size)
{
	__u8 bits = 0;

#pragma unroll
	for (__u32 i = 0; i < size; i++)
		bits |= a[i] ^ b[i];
	return bits;
}

static __always_inline int same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/* An ordinary packet. */
struct packet {
	struct key key;
	__u32 length;  /* from the IP header on */
	__u32 segment; /* the same of what is on the wire */
	__u32 hops;    /* the four bytes with the time to live; IPv6: the first eight hold it */
	__u8 v6;
	__u8 ends;     /* SYN, FIN or RST */
	__u8 dsfield;
};

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

/* Ports, flags and lengths. size is that of the packet after the IP header. */
static __always_inline enum reason read_transport(struct packet *p, void *header, void *end, __u32 ip, __u32 size, __u32 gso)
{
	__u32 head;

	if (p->key.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = header;
		__u8 flags;

		if ((void *)(tcp + 1) > end)
			return MALFORMED;
		p->key.source_port = tcp->source;
		p->key.destination_port = tcp->dest;
		flags = ((__u8 *)tcp)[13];
		p->ends = flags & (FIN | SYN | RST);
		if ((flags & (FIN | SYN | RST | ACK)) != ACK)
			return FLAGS;
		head = tcp->doff * 4;
		if (head < sizeof *tcp || head > size)
			return MALFORMED;
	} else if (p->key.protocol == IPPROTO_UDP) {
		struct udphdr *udp = header;

		if ((void *)(udp + 1) > end)
			return MALFORMED;
		p->key.source_port = udp->source;
		p->key.destination_port = udp->dest;
		if (bpf_ntohs(udp->len) != size)
			return MALFORMED;
		head = sizeof *udp;
	} else {
		return PROTOCOL;
	}
	p->segment = gso ? ip + head + gso : p->length;
	return FAST;
}

static __always_inline enum reason read4(struct __sk_buff *skb, const __u32 at, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + at;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return MALFORMED;
	if (ip->ihl != 5)
		return OPTIONS;
	if (ip->frag_off & bpf_htons(0x3fff))
		return FRAGMENT;
	p->length = bpf_ntohs(ip->tot_len);
	if (p->length < sizeof *ip || p->length + at != skb->len || sum20(ip) != 0xffff)
		return MALFORMED;
	mapped(&p->key.source, ip->saddr);
	mapped(&p->key.destination, ip->daddr);
	p->key.protocol = ip->protocol;
	p->dsfield = ip->tos;
	p->hops = ip->ttl;
	return read_transport(p, ip + 1, end, sizeof *ip, p->length - sizeof *ip, skb->gso_size);
}

static __always_inline enum reason read6(struct __sk_buff *skb, const __u32 at, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + at;
	__u32 size;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return MALFORMED;
	size = bpf_ntohs(ip->payload_len);
	p->length = size + sizeof *ip;
	if (p->length + at != skb->len)
		return MALFORMED;
	__builtin_memcpy(&p->key.source, &ip->saddr, sizeof p->key.source);
	__builtin_memcpy(&p->key.destination, &ip->daddr, sizeof p->key.destination);
	p->key.protocol = ip->nexthdr;
	p->v6 = 1;
	p->dsfield = (ip->priority << 4) | (ip->flow_lbl[0] >> 4);
	p->hops = ip->hop_limit;
	return read_transport(p, ip + 1, end, sizeof *ip, size, skb->gso_size);
}

/* Makes the headers of a packet that begins `at` bytes into the frame readable. */
static __always_inline void pull(struct __sk_buff *skb, const __u32 at)
{
	__u32 want = at + sizeof(struct ipv6hdr) + sizeof(struct tcphdr);

	if (want > skb->len)
		want = skb->len;
	if ((void *)(long)skb->data + want > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, want);
}

/*
 * Reads the packet that begins `at` bytes into the frame. p->ends and the key are
 * valid with FLAGS too.
 */
static __always_inline enum reason read(struct __sk_buff *skb, const __u32 at, __be16 protocol, struct packet *p)
{
	if (skb->vlan_present)
		return LINK;
	if (protocol == bpf_htons(ETH_P_IP))
		return read4(skb, at, p);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return read6(skb, at, p);
	return PROTOCOL;
}

static __always_inline void turn(const struct key *k, struct key *reverse)
{
	reverse->source = k->destination;
	reverse->destination = k->source;
	reverse->source_port = k->destination_port;
	reverse->destination_port = k->source_port;
	reverse->protocol = k->protocol;
	__builtin_memset(reverse->zero, 0, sizeof reverse->zero);
}

static __always_inline void close_way(const struct key *k, __u64 now)
{
	struct way *w = bpf_map_lookup_elem(&ways, k);

	if (w && !w->closed) {
		w->closed = 1;
		w->reported = now;
	}
}

/* A connection that ends, or begins anew, is conntrack's alone. */
static __always_inline void close_flow(const struct key *k)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct key reverse;

	close_way(k, now);
	turn(k, &reverse);
	close_way(&reverse, now);
}

/* The time, if packets may be fast at all. */
static __always_inline enum reason permitted(struct packet *p, struct way **way, struct peer **peer)
{
	__u64 now;
	struct flow *f = bpf_map_lookup_elem(&flows, &p->key);
	struct way *w;
	struct peer *e;

	if (!f)
		return NO_FLOW;
	if (p->hops < 2)
		return TTL;
	w = bpf_map_lookup_elem(&ways, &p->key);
	if (!w)
		return NO_WAY;
	if (w->closed)
		return CLOSED;
	now = bpf_ktime_get_coarse_ns();
	if (now > alive_until)
		return AWAY;
	if (now - w->left > hold)
		return NO_WAY;
	e = bpf_map_lookup_elem(&peers, &f->peer);
	if (!e || !e->generation || e->generation != f->generation)
		return PEER;
	if (now - w->used > SECOND)
		w->used = now;
	*way = w;
	*peer = e;
	return FAST;
}

/* Takes one from the time to live of the packet `at` bytes into the frame. */
static __always_inline int hop(struct __sk_buff *skb, const struct packet *p, const __u32 at)
{
	struct {
		__u8 ttl, protocol;
		__u16 check;
	} word;
	__u8 limit = p->hops - 1;
	__u32 sum;

	if (p->v6)
		return bpf_skb_store_bytes(skb, at + offsetof(struct ipv6hdr, hop_limit), &limit, sizeof limit, 0);
	if (bpf_skb_load_bytes(skb, at + offsetof(struct iphdr, ttl), &word, sizeof word))
		return -1;
	word.ttl = limit;
	/* RFC 1141: the sum of the rest grows by what the time to live loses. */
	sum = word.check + (__u32)bpf_htons(0x0100);
	word.check = sum + (sum >= 0xffff);
	return bpf_skb_store_bytes(skb, at + offsetof(struct iphdr, ttl), &word, sizeof word, 0);
}

/* ---- what leaves the stack ---- */

#define REPORT_AFTER 16
#define REPORT_AGAIN (SECOND / 4)

struct frame {
	__u8 macs[2 * ETH_ALEN];
	__be16 protocol;
} __attribute__((packed));

static __always_inline void report(const struct key *k, struct way *w, __u64 now)
{
	struct report r = { .key = *k, .device = w->device, .closed = w->closed };

	w->reported = now;
	bpf_ringbuf_output(&reports, &r, sizeof r, 0);
}

/* Remembers that a packet has left the stack through this device. */
static __always_inline void left(struct __sk_buff *skb, const struct packet *p, const __u8 *macs)
{
	__u64 now = bpf_ktime_get_coarse_ns(), pause;
	struct way *w = bpf_map_lookup_elem(&ways, &p->key);

	/* Addresses are replaced together with their entry: readers see both or none. */
	if (!w || (!w->closed && (w->device != skb->ifindex || w->from != skb->ingress_ifindex ||
				  differ(w->macs, macs, sizeof w->macs)))) {
		struct way new = { .left = now, .device = skb->ifindex, .from = skb->ingress_ifindex, .packets = 1 };

		if (w) {
			new.packets = w->packets;
			new.used = w->used;
			new.reported = w->reported;
			new.waits = w->waits;
		}
		__builtin_memcpy(new.macs, macs, sizeof new.macs);
		bpf_map_update_elem(&ways, &p->key, &new, BPF_ANY);
		return;
	}
	if (w->closed) {
		/* An end that conntrack did not believe; or the same ports again. */
		if (now - w->reported > SECOND)
			report(&p->key, w, now);
		return;
	}
	w->left = now;
	if (w->packets < REPORT_AFTER) {
		w->packets++;
		return;
	}
	if (bpf_map_lookup_elem(&flows, &p->key)) {
		w->waits = 0;
		pause = REPORT_AGAIN;
	} else {
		pause = SECOND << (w->waits & 7);
	}
	if (w->reported && now - w->reported < pause)
		return;
	if (pause >= SECOND && w->waits < 5)
		w->waits++;
	report(&p->key, w, now);
}

struct vxlan {
	struct iphdr ip;
	struct udphdr udp;
	__be32 flags, vni;
	struct frame frame;
} __attribute__((packed));

#define VXLAN_FLAGS 0x08000000

/* Notes the packet that begins after the Ethernet header at `at`. */
static __always_inline void note(struct __sk_buff *skb, const __u32 at, const struct frame *f)
{
	struct packet p = {};
	__u8 macs[2 * ETH_ALEN];

	__builtin_memcpy(macs, f->macs, sizeof macs);
	if (read(skb, at + sizeof *f, f->protocol, &p) == FAST)
		left(skb, &p, macs);
}

/*
 * At the egress of the uplink, and of the kernel's device where that is used. What
 * the kernel's device has encapsulated is noted at the uplink: only there has it
 * passed the filters of the host.
 */
SEC("tc/to_peer") int to_peer(struct __sk_buff *skb)
{
	struct {
		struct frame frame;
		struct vxlan vxlan;
	} __attribute__((packed)) *outer;
	void *end;

	/* What is fast came from the device of a pod. */
	if (skb->ingress_ifindex && skb->ingress_ifindex != bridge)
		return NEXT;
	if (!skb->ingress_ifindex) {
		if (!vxlan_port || skb->ifindex != uplink || skb->protocol != bpf_htons(ETH_P_IP))
			return NEXT;
		pull(skb, sizeof *outer);
		outer = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if ((void *)(outer + 1) > end || outer->vxlan.ip.protocol != IPPROTO_UDP || outer->vxlan.ip.ihl != 5 ||
		    outer->vxlan.udp.dest != vxlan_port || outer->vxlan.ip.saddr != vxlan_local || outer->vxlan.vni != vxlan_vni)
			return NEXT;
		note(skb, sizeof(struct vxlan), &outer->vxlan.frame);
		return NEXT;
	}
	pull(skb, ETH_HLEN);
	outer = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if ((void *)(&outer->frame + 1) <= end)
		note(skb, 0, &outer->frame);
	return NEXT;
}

/* At the egress of a pod's veth on the bridge. */
SEC("tc/to_pod") int to_pod(struct __sk_buff *skb)
{
	struct frame *f;

	pull(skb, ETH_HLEN);
	f = (void *)(long)skb->data;
	/* Frames that are not the bridge's own were not routed. */
	if ((void *)(f + 1) <= (void *)(long)skb->data_end && !differ(&f->macs[ETH_ALEN], bridge_mac, ETH_ALEN))
		note(skb, 0, f);
	return NEXT;
}

/* ---- from pods to peers ---- */

/*
 * The next hop of what `to` describes, and whether the path carries it. `device` is
 * where the packet comes from, or with LOOKUP_OUTPUT where it goes to.
 */
static __always_inline enum reason route(struct __sk_buff *skb, __u32 device, __u32 flags, struct bpf_fib_lookup *to,
					 struct bpf_redir_neigh *hop)
{
	to->ifindex = device;
	switch (bpf_fib_lookup(skb, to, sizeof *to, flags | LOOKUP_SKIP_NEIGH)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return TOO_LARGE;
	default:
		return ROUTE;
	}
	if (to->ifindex != uplink)
		return ROUTE;
	hop->nh_family = to->family;
	if (to->family == FAMILY4)
		hop->ipv4_nh = to->ipv4_dst;
	else
		__builtin_memcpy(hop->ipv6_nh, to->ipv6_dst, sizeof hop->ipv6_nh);
	return FAST;
}

/* RFC 6040: CE inside becomes ECT(0) outside, as in the kernel's device. */
static __always_inline __u8 outer_ecn(__u8 inner)
{
	inner &= 3;
	return inner == 3 ? 2 : inner;
}

static __always_inline enum reason send_vxlan4(struct __sk_buff *skb, struct packet *p, struct peer *to)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	struct bpf_fib_lookup path = {};
	struct bpf_redir_neigh next = {};
	struct vxlan h = {};
	__u32 hash = bpf_get_hash_recalc(skb);
	enum reason r;

	/* The port that the kernel's device would take: routers keep to one way. */
	hash ^= hash << 16;
	h.udp.source = bpf_htons((((__u64)hash * port_count) >> 32) + port_first);
	h.udp.dest = vxlan_port;
	path.family = FAMILY4;
	path.l4_protocol = IPPROTO_UDP;
	path.sport = h.udp.source;
	path.dport = h.udp.dest;
	path.tot_len = p->segment + sizeof h;
	path.ipv4_src = to->local.word[3];
	path.ipv4_dst = to->remote.word[3];
	r = route(skb, uplink, LOOKUP_OUTPUT, &path, &next);
	if (r != FAST)
		return r;
	if (bpf_skb_adjust_room(skb, sizeof h, BPF_ADJ_ROOM_MAC, flags))
		return FAILED;
	h.ip.version = 4;
	h.ip.ihl = 5;
	h.ip.tos = outer_ecn(p->dsfield);
	h.ip.tot_len = bpf_htons(p->length + sizeof h);
	/* Without DF, as the kernel's device sends: each packet needs its number. */
	h.ip.id = bpf_get_prandom_u32();
	h.ip.ttl = 64;
	h.ip.protocol = IPPROTO_UDP;
	h.ip.saddr = to->local.word[3];
	h.ip.daddr = to->remote.word[3];
	h.ip.check = ~sum20(&h.ip);
	h.udp.len = bpf_htons(p->length + sizeof h - sizeof h.ip);
	h.flags = bpf_htonl(VXLAN_FLAGS);
	h.vni = vxlan_vni;
	__builtin_memcpy(h.frame.macs, to->macs, sizeof h.frame.macs);
	h.frame.protocol = p->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &h, sizeof h, 0) || hop(skb, p, ETH_HLEN + sizeof h) ||
	    bpf_redirect_neigh(uplink, &next, sizeof next, 0) != REDIRECT)
		return REASONS; /* half done: it must not go on */
	return FAST;
}

/* Peers on the uplink's link, or behind its routers, without encapsulation. */
static __always_inline enum reason send_plain(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_fib_lookup path = {};
	struct bpf_redir_neigh next = {};
	enum reason r;

	path.l4_protocol = p->key.protocol;
	path.sport = p->key.source_port;
	path.dport = p->key.destination_port;
	path.tot_len = p->segment;
	if (p->v6) {
		path.family = FAMILY6;
		__builtin_memcpy(path.ipv6_src, &p->key.source, sizeof path.ipv6_src);
		__builtin_memcpy(path.ipv6_dst, &p->key.destination, sizeof path.ipv6_dst);
	} else {
		path.family = FAMILY4;
		path.tos = p->dsfield;
		path.ipv4_src = p->key.source.word[3];
		path.ipv4_dst = p->key.destination.word[3];
	}
	r = route(skb, bridge, 0, &path, &next);
	if (r != FAST)
		return r;
	if (hop(skb, p, ETH_HLEN))
		return FAILED;
	return bpf_redirect_neigh(uplink, &next, sizeof next, 0) == REDIRECT ? FAST : REASONS;
}

/* Through the kernel's device. */
static __always_inline enum reason send_device(struct __sk_buff *skb, struct packet *p, struct peer *to)
{
	__u8 macs[2 * ETH_ALEN];

	__builtin_memcpy(macs, to->macs, sizeof macs);
	if (hop(skb, p, ETH_HLEN))
		return FAILED;
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof macs, 0) || bpf_redirect(to->out, 0) != REDIRECT)
		return REASONS;
	return FAST;
}

SEC("tc/from_pod") int from_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	struct way *way;
	struct peer *to;
	enum reason r;
	void *data, *end;
	struct frame *f;

	pull(skb, sizeof(struct ethhdr));
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	f = data;
	if ((void *)(f + 1) > end)
		return NEXT;
	if (differ(f->macs, bridge_mac, ETH_ALEN)) {
		count(skb, OUT, LINK);
		return NEXT;
	}
	r = read(skb, sizeof(struct ethhdr), f->protocol, &p);
	if (p.ends)
		close_flow(&p.key);
	if (r == FAST)
		r = permitted(&p, &way, &to);
	if (r == FAST && way->device != to->out)
		r = NO_WAY;
	if (r == FAST && p.segment > to->mtu)
		r = TOO_LARGE;
	if (r == FAST) {
		switch (to->format) {
		case VXLAN4:
			r = send_vxlan4(skb, &p, to);
			break;
		case PLAIN:
			r = send_plain(skb, &p);
			break;
		case DEVICE:
			r = send_device(skb, &p, to);
			break;
		default:
			r = PEER;
		}
	}
	return finish(skb, OUT, r);
}

/* ---- from peers to pods ---- */

/* Puts a packet into the namespace of a pod. */
static __always_inline enum reason deliver(struct __sk_buff *skb, struct packet *p, __u32 device, const __u8 *macs)
{
	if (hop(skb, p, ETH_HLEN) || bpf_skb_store_bytes(skb, 0, macs, 2 * ETH_ALEN, 0) ||
	    bpf_redirect_peer(device, 0) != REDIRECT)
		return REASONS;
	return FAST;
}

/* Whether the frame is one that the kernel's vxlan device would take. */
static __always_inline enum reason read_vxlan4(struct __sk_buff *skb, struct vxlan *h)
{
	__u16 size;

	size = bpf_ntohs(h->ip.tot_len);
	if (h->ip.ihl != 5 || h->ip.version != 4 || h->ip.frag_off & bpf_htons(0x3fff) || (h->ip.tos & 3) == 3 || !h->ip.ttl)
		return OUTER; /* CE has to be carried over */
	if (size + ETH_HLEN != skb->len || bpf_ntohs(h->udp.len) != size - sizeof h->ip || sum20(&h->ip) != 0xffff)
		return OUTER;
	if (h->flags != bpf_htonl(VXLAN_FLAGS) || h->vni != vxlan_vni ||
	    differ(h->frame.macs, vxlan_mac, ETH_ALEN))
		return OUTER;
	return FAST;
}

static __always_inline enum reason receive_vxlan4(struct __sk_buff *skb, struct packet *p)
{
	const __u32 at = ETH_HLEN + sizeof(struct vxlan);
	struct vxlan *h;
	struct way *way;
	struct peer *from;
	struct address source;
	enum reason r;
	__be16 protocol;
	__u32 device;
	__u8 macs[2 * ETH_ALEN];

	pull(skb, at);
	h = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return OUTER;
	r = read_vxlan4(skb, h);
	if (r != FAST)
		return r;
	mapped(&source, h->ip.saddr);
	protocol = h->frame.protocol;
	r = read(skb, at, protocol, p);
	if (p->ends)
		close_flow(&p->key);
	if (r == FAST)
		r = permitted(p, &way, &from);
	if (r != FAST)
		return r;
	if (from->format != VXLAN4 || !same(&source, &from->remote))
		return SOURCE;
	if (way->from != from->in)
		return NO_WAY;
	if (p->segment > pod_mtu)
		return TOO_LARGE;
	/* The way may change while it is used. */
	device = way->device;
	__builtin_memcpy(macs, way->macs, sizeof macs);
	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(struct vxlan), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return FAILED;
	return deliver(skb, p, device, macs);
}

/* Packets without encapsulation, as they come over `format`. */
static __always_inline enum reason receive(struct __sk_buff *skb, enum format format, struct packet *p)
{
	struct way *way;
	struct peer *from;
	enum reason r;
	__u32 device;
	__u8 macs[2 * ETH_ALEN];

	pull(skb, ETH_HLEN);
	r = read(skb, ETH_HLEN, skb->protocol, p);
	if (p->ends)
		close_flow(&p->key);
	if (r == FAST)
		r = permitted(p, &way, &from);
	if (r != FAST)
		return r;
	if (from->format != format)
		return SOURCE;
	if (way->from != from->in)
		return NO_WAY;
	if (p->segment > pod_mtu)
		return TOO_LARGE;
	device = way->device;
	__builtin_memcpy(macs, way->macs, sizeof macs);
	return deliver(skb, p, device, macs);
}

/* At the ingress of the uplink. */
SEC("tc/from_uplink") int from_uplink(struct __sk_buff *skb)
{
	struct packet p = {};
	struct {
		struct ethhdr eth;
		struct iphdr ip;
		struct udphdr udp;
	} __attribute__((packed)) *outer = (void *)(long)skb->data;

	if (skb->pkt_type != 0 /* PACKET_HOST */)
		return NEXT;
	if (vxlan_port && skb->protocol == bpf_htons(ETH_P_IP) && (void *)(outer + 1) <= (void *)(long)skb->data_end &&
	    outer->ip.protocol == IPPROTO_UDP && outer->udp.dest == vxlan_port && outer->ip.daddr == vxlan_local)
		return finish(skb, IN, receive_vxlan4(skb, &p));
	if (plain)
		return finish(skb, IN, receive(skb, PLAIN, &p));
	return NEXT;
}

/* At the ingress of the kernel's device. */
SEC("tc/from_device") int from_device(struct __sk_buff *skb)
{
	struct packet p = {};

	if (skb->pkt_type != 0)
		return NEXT;
	return finish(skb, IN, receive(skb, DEVICE, &p));
}
