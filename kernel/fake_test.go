package kernel_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"flannel/kernel"
	"flannel/kernel/kerneltest"
)

func TestFakePrintsWhatItHolds(t *testing.T) {
	f := kerneltest.New(scope)
	up := f.AddLink("eth0", 1500)
	f.AddRoute(kernel.Route{Dst: subnet4(9), Via: public4(9), Dev: "eth0"}, 4)
	apply(t, f, dual(up, 2, 3))
	golden(t, f.String(), "testdata/dual_fake.txt")
}

func TestFakeReportsTampering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kerneltest.New(scope)
		state := single(f.AddLink("eth0", 1500), 2)
		apply(t, f, state)
		ctx, stop := context.WithCancel(t.Context())
		calls := 0
		done := make(chan error)
		go func() { done <- f.Run(ctx, func() { calls++ }) }()
		synctest.Wait()
		if got := f.Delete("link flannel.1"); got != 1 {
			t.Errorf("deleted %d entries, want 1", got)
		}
		if calls != 1 || strings.Contains(f.String(), "route") {
			t.Errorf("got %d calls and:\n%s", calls, f)
		}
		if stats := apply(t, f, state); stats.Drift[kernel.TableDevices] != 1 || stats.Put[kernel.TableRoutes] != 1 {
			t.Errorf("got %+v, want the drift of one device", stats)
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestRefusedEntriesAreRetriedAlone(t *testing.T) {
	f := kerneltest.New(scope)
	state := single(f.AddLink("eth0", 1500), 2, 3)
	full := errors.New("table full")
	f.Refuse(func(entry string) error {
		if strings.HasPrefix(entry, "fdb 02:00:00:00:00:02") {
			return full
		}
		return nil
	})
	stats, err := f.Apply(t.Context(), state, false)
	if !errors.Is(err, full) || !errors.Is(stats.Failed[subnet4(2)], full) || stats.Failed[subnet4(3)] != nil {
		t.Errorf("got %+v, %v; want that peer 2 failed", stats, err)
	}
	if !strings.Contains(f.String(), "route 10.5.3.0/24") {
		t.Errorf("the other peer is missing:\n%s", f)
	}
	f.Refuse(nil)
	if stats := apply(t, f, state); stats.Changed() != 1 || stats.Listed {
		t.Errorf("got %+v, want only the refused entry", stats)
	}
}

// Whatever states came before, the kernel holds the last one.
func TestHistoryLeavesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	f := kerneltest.New(scope)
	up := f.AddLink("eth0", 1500)
	for range 300 {
		var numbers []int
		for n := 2; n < 30; n++ {
			if random.IntN(4) > 0 {
				numbers = append(numbers, n)
			}
		}
		state := single(up, numbers...)
		for i := range state.FDB {
			if random.IntN(5) == 0 {
				state.FDB[i].Dst = public4(100 + random.IntN(5))
			}
		}
		hold := random.IntN(4) == 0
		if random.IntN(10) == 0 {
			f.Invalidate()
		}
		if _, err := f.Apply(t.Context(), state, hold); err != nil {
			t.Fatal(err)
		}
		fresh := kerneltest.New(scope)
		fresh.AddLink("eth0", 1500)
		apply(t, fresh, state)
		if got, want := f.String(), fresh.String(); !hold && got != want {
			t.Fatalf("got:\n%s\nwant:\n%s", got, want)
		}
	}
}
