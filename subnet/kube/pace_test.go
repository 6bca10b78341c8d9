package kube

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// reads counts how often a connection is read in the second after it has had
// this many arrivals per second for two seconds.
func reads(perSecond int) (n int, longest time.Duration) {
	var p pace
	now := time.Unix(1700000000, 0)
	gap := time.Second / time.Duration(perSecond)
	arrival := now
	for now.Before(time.Unix(1700000005, 0)) {
		rest := p.rest(now)
		now = now.Add(rest)
		if arrival.After(now) {
			now = arrival // the read blocks
		}
		late := now.Sub(arrival)
		for !arrival.After(now) {
			arrival = arrival.Add(gap)
		}
		p.read(now, false)
		if now.After(time.Unix(1700000003, 0)) && now.Before(time.Unix(1700000004, 0)) {
			n++
			longest = max(longest, late)
		}
	}
	return n, longest
}

func TestABusyConnectionIsReadSomeTimesASecond(t *testing.T) {
	for _, perSecond := range []int{100, 1000, 12} {
		if n, late := reads(perSecond); n > 11 || n < busyReads || late > restBetween {
			t.Errorf("%d arrivals per second: %d reads, %v late", perSecond, n, late)
		}
	}
	if n, late := reads(6); n < 5 || late != 0 {
		t.Errorf("a quiet connection: %d reads, %v late", n, late)
	}
}

func TestWhatIsLeftBehindIsReadAtOnce(t *testing.T) {
	p := pace{busy: true}
	now := time.Unix(1700000000, 0)
	p.read(now, true)
	p.busy = true
	if rest := p.rest(now); rest != 0 {
		t.Errorf("rests %v", rest)
	}
}

func TestPacedConnCarriesEverything(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	want := bytes.Repeat([]byte("0123456789"), 50_000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write(want)
	}()
	plain, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newPacedConn(plain, func(err error) { t.Error(err) })
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
	<-done
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a closed connection can be read")
	}
}
