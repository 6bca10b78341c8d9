package kernel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"flannel/kernel"
	"flannel/kernel/kerneltest"
	"flannel/kernel/rtnl"
)

// question is what the kernel sends when it needs to know who has 10.5.2.9.
func question(dev int) rtnl.Message {
	body := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET, 0, 0, 0}, uint32(dev))
	body = append(body, unix.NUD_INCOMPLETE, 0, 0, 0, 8, 0, unix.NDA_DST, 0, 10, 5, 2, 9)
	return rtnl.Message{Type: unix.RTM_GETNEIGH, Body: body}
}

// observed runs a Reconciler over the tables of a fake, changed by change. The
// observer gets events as from the kernel.
func observed(t *testing.T, f *kerneltest.Fake, change func(*kernel.Backing)) (*kernel.Reconciler, kernel.Observer) {
	b := f.Backing()
	follow := b.Follow
	observers := make(chan kernel.Observer, 1)
	b.Follow = func(ctx context.Context, o kernel.Observer) {
		observers <- o
		follow(ctx, o)
	}
	change(&b)
	r := kernel.NewReconciler(slog.New(slog.DiscardHandler), scope, b)
	done := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		_ = r.Run(ctx, func() {})
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return r, <-observers
}

func TestAMissIsAnsweredAlthoughTheTablesCannotBeListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kerneltest.New(scope)
		up := f.AddLink("eth0", 1500)
		r, o := observed(t, f, func(b *kernel.Backing) {
			b.Addrs.List = func(kernel.Selection, func(kernel.AddrKey, struct{})) error { return errors.New("no memory") }
		})
		if _, err := r.Apply(t.Context(), demanding(up, 2), false); err == nil {
			t.Fatal("the tables were listed: the test is pointless")
		}
		o.Question(question(up + 1))
		synctest.Wait()
		if got := r.Counters().MissesAnswered; got != 1 {
			t.Errorf("got %d answers, want 1", got)
		}
		for _, entry := range peerEntries {
			if !strings.Contains(f.String(), entry) {
				t.Errorf("%q is missing in:\n%s", entry, f)
			}
		}
	})
}

func TestMissesOnOtherDevicesAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kerneltest.New(scope)
		up := f.AddLink("eth0", 1500)
		r, o := observed(t, f, func(*kernel.Backing) {})
		apply(t, r, demanding(up, 2))
		for _, test := range []struct {
			dev  int
			want uint64
		}{{up + 1, 1}, {up, 0}} {
			before := r.Counters()
			o.Question(question(test.dev))
			o.Event(question(test.dev))
			synctest.Wait()
			after := r.Counters()
			if got := after.MissesAnswered - before.MissesAnswered; got != test.want || after.MissesUnknown > 0 {
				t.Errorf("device %d: got %d answers, want %d; %+v", test.dev, got, test.want, after)
			}
			if after.Tampering > 0 {
				t.Errorf("device %d: a question is taken for tampering", test.dev)
			}
		}
	})
}
