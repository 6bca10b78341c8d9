package uplink

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/testkit/nstest"
	"flannel/kernel/rtnl"
)

// batch runs lines of the ip tool in the namespace. It ends at the first error.
func batch(b *testing.B, ns *nstest.NS, lines []string) {
	b.Helper()
	var out []byte
	var err error
	ns.Do(func() {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		b.Fatalf("ip -batch: %v\n%s", err, out)
	}
}

func foreignRoutes(n int, verb string) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("route %s 20.%d.%d.0/24 via 10.1.0.1", verb, i>>8&255, i&255)
	}
	return lines
}

// BenchmarkForeignRouteEvent is the processor time that a route of somebody
// else costs a watcher that tracks links, at 1,000 of them per second.
func BenchmarkForeignRouteEvent(b *testing.B) {
	ns := nstest.New(b)
	ns.AddUplink("eth0", "10.0.0.2/16")
	ns.AddUplink("eth1", "10.1.0.2/24")
	events, err := rtnl.Listen(int(ns.Namespace), bufferSize, routeGroups...)
	if err != nil {
		b.Fatal(err)
	}
	defer events.Close()
	sub := subscription{index: ns.Index("eth0"), table: tableOf(ns.Index("eth0"), viaLink("10.0.0.0/16", ns.Index("eth0")))}
	var s eventSummary
	const perLook = int(time.Second / collectFor * 10)
	verbs, total, rounds := []string{"add", "del"}, time.Duration(0), 0
	for b.Loop() {
		batch(b, ns, foreignRoutes(perLook, verbs[rounds%2]))
		before := processorTime(b)
		if err := events.Drain(func(m rtnl.Message) { s.merge(sub.classify(m)) }); err != nil || s.look {
			b.Fatalf("got %+v, %v; want nothing that matters", s, err)
		}
		total += processorTime(b) - before
		rounds++
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(rounds*perLook), "cpu-ns/event")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLinkTable reads the links on a host with 100,000 other routes.
func BenchmarkLinkTable(b *testing.B) {
	ns := nstest.New(b)
	ns.AddUplink("eth0", "10.0.0.2/16")
	ns.AddUplink("eth1", "10.1.0.2/24")
	var lines []string
	for i := range 100_000 {
		lines = append(lines, fmt.Sprintf("route add 20.%d.%d.%d/32 via 10.1.0.1", i>>16, i>>8&255, i&255))
	}
	batch(b, ns, lines)
	h := openTest(b, ns)
	index := ns.Index("eth0")
	b.ReportAllocs()
	for b.Loop() {
		t, err := h.linkTable(index, v4)
		if err != nil {
			b.Fatal(err)
		}
		if got, want := linkText(t.links()), "10.0.0.0/16 true;"; got != want {
			b.Fatalf("got %s, want %s", got, want)
		}
	}
}
