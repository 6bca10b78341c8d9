package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"flannel/internal/ipfam"
	"flannel/lab"
)

// etcdFaults happen to the three members and to what is in them.
func etcdFaults() []fault {
	table := []fault{
		{name: "own lease deleted", cuts: repair, inject: deleteLease},
		{name: "own lease overwritten with nonsense", cuts: repair, inject: putLease(func(scene) string { return "not JSON" })},
		{name: "own lease overwritten again and again", wait: waitContention(), cutsAll: true, cuts: 5 * time.Second, inject: fight},
		{name: "own lease given to another", restarts: true, wait: waitStart(), shortest: 5 * time.Second, longest: 8 * time.Second, cutsAll: true, cuts: begin,
			inject: putLease(another), undo: all(kill, putLease(reservation), start)},
		{name: "hostile records", wait: waitGuard(), shortest: time.Second, longest: 2 * time.Second, inject: hostile(true), undo: hostile(false), uses: usedHostile},
		{name: crowdName, wait: waitGuard(), longest: 5 * time.Second, inject: burst(true), undo: burst(false), uses: usedCrowd},

		{name: "one member of etcd stopped", longest: 5 * time.Second, inject: someMembers(1, (*lab.EtcdMember).Stop), undo: etcdStart},
		{name: "one member of etcd killed", longest: 5 * time.Second, inject: someMembers(1, (*lab.EtcdMember).Kill), undo: etcdStart},
		{name: "quorum of etcd stopped", wait: waitOutage(5 * time.Second), longest: 5 * time.Second, inject: someMembers(2, (*lab.EtcdMember).Stop), undo: etcdStart},
		{name: "quorum of etcd killed", wait: waitOutage(5 * time.Second), longest: 5 * time.Second, inject: someMembers(2, (*lab.EtcdMember).Kill), undo: etcdStart},
		{name: "etcd stopped", wait: waitOutage(5 * time.Second), longest: 5 * time.Second, inject: func(_ context.Context, s scene) error { return s.lab.Etcd.Stop() }, undo: etcdStart},
		{name: "etcd cut off", wait: waitOutage(5 * time.Second), longest: 5 * time.Second,
			inject: onEtcd("nft 'table inet cut { chain in { type filter hook input priority -400; iifname eth0 drop; }; }'"), undo: onEtcd("nft delete table inet cut")},
		{name: "etcd refuses writes", wait: waitOutage(3 * time.Second), longest: 3 * time.Second, cutsAll: true, cuts: again, inject: all(denyWrites(true), deleteLease), undo: denyWrites(false)},
		{name: "etcd compacted while a daemon is stopped", stops: true, longest: 2 * time.Second,
			inject: all(send(syscall.SIGSTOP), func(ctx context.Context, s scene) error { return s.lab.Etcd.Compact(ctx) }), undo: send(syscall.SIGCONT)},
		{name: "etcd wiped", wait: waitGuard(), inject: etcdWipe},
		{name: "etcd restored from an older snapshot", wait: waitGuard(), inject: etcdRestore},
		{name: "disk of one member of etcd full", longest: 3 * time.Second, inject: fillDisk, undo: freeDisk},
	}
	for i := range table {
		table[i].store = etcd
	}
	return table
}

func etcdStart(ctx context.Context, s scene) error { return s.lab.Etcd.Start(ctx) }

func onEtcd(line string) act {
	return func(ctx context.Context, s scene) error {
		_, err := s.lab.Etcd.Node.Exec(ctx, "sh", "-c", line)
		return err
	}
}

// someMembers does something to as many members, whichever they are.
func someMembers(count int, do func(*lab.EtcdMember) error) act {
	return func(_ context.Context, s scene) error {
		for i := range count {
			if err := do(s.lab.Etcd.Members[(s.drawn.number+i)%len(s.lab.Etcd.Members)]); err != nil {
				return err
			}
		}
		return nil
	}
}

func denyWrites(deny bool) act {
	return func(ctx context.Context, s scene) error { return s.lab.Etcd.DenyWrites(ctx, deny) }
}

const configKey = lab.DefaultPrefix + "/config"

// etcdWipe leaves nothing but the configuration, as somebody does who sets up
// etcd anew.
func etcdWipe(ctx context.Context, s scene) error {
	config, err := s.lab.Etcd.List(ctx, configKey)
	if err != nil {
		return err
	}
	err = inOrder(s.lab.Etcd.Stop, s.lab.Etcd.Wipe, func() error { return s.lab.Etcd.Start(ctx) })
	if err != nil {
		return err
	}
	return s.lab.Etcd.Put(ctx, configKey, config[configKey])
}

func etcdRestore(ctx context.Context, s scene) error {
	return inOrder(s.lab.Etcd.Kill, func() error { return s.lab.Etcd.Restore(ctx, s.snapshot) }, func() error { return s.lab.Etcd.Start(ctx) })
}

func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// fillDisk writes until the last member of etcd has no space and ends.
func fillDisk(ctx context.Context, s scene) error {
	last := s.lab.Etcd.Members[len(s.lab.Etcd.Members)-1]
	if err := last.FillDisk(); err != nil {
		return err
	}
	value := strings.Repeat("x", 1<<20)
	for n := 0; ; n++ {
		select {
		case <-last.Exited():
			return s.lab.Etcd.DeletePrefix(ctx, fillerPrefix)
		default:
		}
		if n == 100 {
			return errors.New("etcd keeps serving without space on its disk")
		}
		if err := s.lab.Etcd.Put(ctx, fmt.Sprint(fillerPrefix, n), value); err != nil {
			return err
		}
	}
}

const fillerPrefix = "/filler/"

func freeDisk(ctx context.Context, s scene) error {
	last := s.lab.Etcd.Members[len(s.lab.Etcd.Members)-1]
	if err := last.FreeDisk(); err != nil {
		return err
	}
	return s.lab.Etcd.Start(ctx)
}

func deleteLease(ctx context.Context, s scene) error {
	key, err := s.leaseKey()
	if err != nil {
		return err
	}
	return s.lab.Etcd.Delete(ctx, key)
}

// leaseKey is that of the victim at the start.
func (s scene) leaseKey() (string, error) {
	subnets, err := s.subnetsAtStart(s.drawn.victim)
	return recordKey(subnets), err
}

func putLease(value func(scene) string) act {
	return func(ctx context.Context, s scene) error {
		key, err := s.leaseKey()
		if err != nil {
			return err
		}
		return s.lab.Etcd.Put(ctx, key, value(s))
	}
}

// another is the record of a node that is not there.
func another(s scene) string {
	return attrs{
		public: ipfam.Pair[string]{"172.31.1.99", "fd00:31:0:1::99"}, mac: both("02:00:00:00:00:99"),
	}.record(s.backend)
}

// reservation lets a node have its key for ever.
func reservation(s scene) string {
	return fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":%q}`, s.host.Addr(ipfam.V4), s.host.Addr(ipfam.V6))
}

// fight writes the victim's record with another MAC, as a second node with the
// same address does.
func fight(ctx context.Context, s scene) error {
	key, err := s.leaseKey()
	if err != nil {
		return err
	}
	public := ipfam.Pair[string]{s.host.Addr(ipfam.V4).String(), s.host.Addr(ipfam.V6).String()}
	for n := range 5 {
		value := attrs{public: public, mac: both(fmt.Sprintf("02:00:00:00:02:%02x", n))}.record(s.backend)
		if err := s.lab.Etcd.PutLeased(ctx, key, value); err != nil {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// burst puts or deletes the records of 2,000 peers, many at once.
func burst(put bool) act {
	return func(ctx context.Context, s scene) error {
		return parallel(crowd, func(n int) error {
			key := recordKey(crowdSubnets(n))
			if !put {
				return s.lab.Etcd.Delete(ctx, key)
			}
			return s.lab.Etcd.Put(ctx, key, peerAttrs(n).record(s.backend))
		})
	}
}

var recordDataKeys = ipfam.Pair[string]{"BackendData", "BackendV6Data"}

// record is the value of a key.
func (a attrs) record(backend string) string {
	value := map[string]any{"PublicIP": a.public[ipfam.V4], "PublicIPv6": a.public[ipfam.V6], "BackendType": backend}
	if backend == vxlan {
		for f, key := range recordDataKeys.Each() {
			value[key] = map[string]any{"VNI": 1, "VtepMAC": a.mac[f]}
		}
	}
	text, _ := json.Marshal(value) // strings and numbers
	return string(text)
}
