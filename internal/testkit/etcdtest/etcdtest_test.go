package etcdtest_test

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flannel/internal/testkit/etcdtest"
)

const key = "/coreos.com/network/test"

func put(t *testing.T, c *clientv3.Client, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	resp, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func want(t *testing.T, c *clientv3.Client, value string) {
	t.Helper()
	if got := get(t, c); got != value {
		t.Errorf("the store holds %q, want %q", got, value)
	}
}

func TestDataSurvivesAStopAndAKill(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.Options{})
	c := s.Client()
	put(t, c, "one")
	s.Stop()
	s.Start()
	want(t, c, "one")
	s.Kill()
	s.Start()
	want(t, c, "one")
}

func TestWipeAndRestore(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.Options{})
	c := s.Client()
	put(t, c, "one")
	snapshot := s.Snapshot()
	put(t, c, "two")
	s.Stop()
	s.Restore(snapshot)
	s.Start()
	want(t, c, "one")
	s.Kill()
	s.Wipe()
	s.Start()
	want(t, c, "")
}

func TestTLSWithUsersAndRotation(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.Options{TLS: true, ClientCerts: true, User: "node", Password: "secret"})
	put(t, s.Client(), "one")
	s.Stop()
	s.Rotate()
	s.Start()
	want(t, s.Client(), "one")
}
