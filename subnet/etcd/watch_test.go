package etcd

import (
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"flannel/internal/health"
	"flannel/subnet"
)

// TestAWatchThatHangs shows in /healthz; one that waits for etcd does not.
func TestAWatchThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := health.New(nil)
		until := make(chan struct{})
		m := &Manager{o: Options{Prefix: "/net", Watching: registry.AddLoop("watch")}}
		w := &watcher{m: m, set: func(subnet.Snapshot) { <-until }, now: &snapshot{}}
		<-time.After(time.Hour)
		if got := registry.Hanging(); len(got) > 0 {
			t.Errorf("at rest: %q", got)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.apply([]*pb.WatchResponse{{Events: []*mvccpb.Event{{
				Kv: &mvccpb.KeyValue{Key: []byte("/net/subnets/10.5.2.0-24"), Value: []byte(`{"PublicIP":"192.0.2.2"}`), ModRevision: 2, CreateRevision: 2},
			}}}})
		}()
		<-time.After(6 * time.Minute)
		if got := registry.Hanging(); len(got) != 1 {
			t.Errorf("got %q, want the watch", got)
		}
		close(until)
		<-done
		if got := registry.Hanging(); len(got) > 0 {
			t.Errorf("later: %q", got)
		}
	})
}
