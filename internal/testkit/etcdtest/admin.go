package etcdtest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// promptReconnect keeps a client from waiting minutes for a server that was
// away for long.
func promptReconnect() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
		MinConnectTimeout: 5 * time.Second,
	})}
}

func isAuthError(err error) bool {
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrPermissionDenied)
}

// enableAuth makes the users root and Options.User.
func (s *Server) enableAuth() {
	s.t.Helper()
	prefix := s.o.Prefix
	if prefix == "" {
		prefix = "/coreos.com/network"
	}
	c := s.connect("", "")
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), startTimeout)
	defer cancel()
	steps := []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", RootPassword); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.UserAdd(ctx, s.o.User, s.o.Password); return err },
		func() error { _, err := c.RoleAdd(ctx, "network"); return err },
		func() error {
			kind := clientv3.PermissionType(clientv3.PermReadWrite)
			_, err := c.RoleGrantPermission(ctx, "network", prefix, clientv3.GetPrefixRangeEnd(prefix), kind)
			return err
		},
		func() error { _, err := c.UserGrantRole(ctx, s.o.User, "network"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			s.t.Fatalf("turn authentication on: %v", err)
		}
	}
}

// Compact forgets all revisions up to the current one.
func (s *Server) Compact() {
	s.t.Helper()
	c := s.Client()
	resp, err := c.Get(s.t.Context(), "/", clientv3.WithCountOnly())
	if err != nil {
		s.t.Fatalf("read revision: %v", err)
	}
	if _, err := c.Compact(s.t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		s.t.Fatalf("compact: %v", err)
	}
}

// Snapshot saves the data of the running server and returns the file.
func (s *Server) Snapshot() string {
	s.t.Helper()
	from, err := s.Client().Snapshot(s.t.Context())
	if err != nil {
		s.t.Fatalf("snapshot: %v", err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(s.dir, "snapshot"+strconv.FormatInt(time.Now().UnixNano(), 36)))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		s.t.Fatalf("snapshot: %v", err)
	}
	if err := to.Close(); err != nil {
		s.t.Fatal(err)
	}
	return to.Name()
}

// Restore replaces all data by that of a snapshot. The server must be stopped.
func (s *Server) Restore(snapshot string) {
	s.t.Helper()
	s.Wipe()
	out, err := exec.CommandContext(s.t.Context(), s.program("etcdutl"), "snapshot", "restore", snapshot,
		"--name="+s.name, "--data-dir="+s.dataDir(),
		"--initial-cluster="+s.members,
		"--initial-advertise-peer-urls="+s.url(peerPort)).CombinedOutput()
	if err != nil {
		s.t.Fatalf("restore: %v\n%s", err, out)
	}
}
