package health

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestALoopThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(nil)
		h := Handler(r, Pages{})
		passes, other := r.AddLoop("passes"), r.AddLoop("other")
		fine := func() {
			t.Helper()
			wantPage(t, h, "/healthz", http.StatusOK, "flanneld is running")
		}
		time.Sleep(24 * time.Hour) // a loop may wait for ever
		fine()
		passes.Works()
		time.Sleep(hangsAfter)
		fine()
		other.Works()
		time.Sleep(time.Second)
		wantPage(t, h, "/healthz", http.StatusServiceUnavailable, "flanneld hangs", "passes: has not come round for 5m1s")
		passes.Waits()
		fine()
	})
}

func TestWaitingForACommandIsNoHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(nil)
		rules := r.AddLoop("rules")
		ctx := WithLoop(t.Context(), rules)
		rules.Works()
		back := Outside(ctx)
		time.Sleep(time.Hour)
		if got := r.Hanging(); got != nil {
			t.Errorf("while a command runs: %q", got)
		}
		back()
		time.Sleep(hangsAfter + time.Second)
		if got := r.Hanging(); len(got) != 1 {
			t.Errorf("after the command: %q", got)
		}
		Outside(t.Context())() // nobody watches
	})
}
