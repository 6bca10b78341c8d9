package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// ctl runs etcdctl on the machine of the server and returns what it prints.
func (e *Etcd) ctl(ctx context.Context, args ...string) (string, error) {
	return e.Node.Exec(ctx, append([]string{e.tool("etcdctl"), "--endpoints=" + e.Endpoint()}, args...)...)
}

// Put writes a key.
func (e *Etcd) Put(ctx context.Context, key, value string) error {
	_, err := e.ctl(ctx, "put", "--", key, value)
	return err
}

// PutLeased writes a key that the store drops after a day.
func (e *Etcd) PutLeased(ctx context.Context, key, value string) error {
	// It prints "lease ID granted with TTL(...)".
	granted, err := e.ctl(ctx, "lease", "grant", "86400")
	if err != nil {
		return err
	}
	fields := strings.Fields(granted)
	if len(fields) < 2 {
		return fmt.Errorf("etcdctl lease grant printed %q", granted)
	}
	_, err = e.ctl(ctx, "put", "--lease="+fields[1], "--", key, value)
	return err
}

// Delete removes a key.
func (e *Etcd) Delete(ctx context.Context, key string) error {
	_, err := e.ctl(ctx, "del", "--", key)
	return err
}

// DeletePrefix removes all keys that begin with prefix.
func (e *Etcd) DeletePrefix(ctx context.Context, prefix string) error {
	_, err := e.ctl(ctx, "del", "--prefix", "--", prefix)
	return err
}

type rangeResponse struct {
	Header struct{ Revision int64 }
	KVs    []struct{ Key, Value []byte }
}

func (e *Etcd) get(ctx context.Context, prefix string) (r rangeResponse, err error) {
	text, err := e.ctl(ctx, "get", "--prefix", "--write-out=json", "--", prefix)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("read the output of etcdctl get: %w", err)
	}
	return r, nil
}

// List returns the keys that begin with prefix and their values.
func (e *Etcd) List(ctx context.Context, prefix string) (map[string]string, error) {
	got, err := e.get(ctx, prefix)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string, len(got.KVs))
	for _, kv := range got.KVs {
		found[string(kv.Key)] = string(kv.Value)
	}
	return found, nil
}

// Revision returns the store's current revision.
func (e *Etcd) Revision(ctx context.Context) (int64, error) {
	got, err := e.get(ctx, DefaultPrefix+"/config")
	return got.Header.Revision, err
}

// Compact removes all revisions before the current one.
func (e *Etcd) Compact(ctx context.Context) error {
	revision, err := e.Revision(ctx)
	if err != nil {
		return err
	}
	_, err = e.ctl(ctx, "compaction", "--physical", strconv.FormatInt(revision, 10))
	return err
}

// DenyWrites makes the store refuse to write, as when its quota is used up.
// etcdctl cannot raise an alarm; the JSON gateway of the server can.
func (e *Etcd) DenyWrites(ctx context.Context, deny bool) error {
	action := "DEACTIVATE"
	if deny {
		action = "ACTIVATE"
	}
	body := fmt.Sprintf(`{"action": %q, "memberID": "1", "alarm": "NOSPACE"}`, action)
	return e.first(func(m *EtcdMember) error {
		url := m.endpoint() + "/v3/maintenance/alarm"
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := e.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, resp.Status)
		}
		return nil
	})
}

// Snapshot writes a snapshot of the store to a file for Restore.
func (e *Etcd) Snapshot(ctx context.Context, path string) error {
	return e.first(func(m *EtcdMember) error {
		_, err := e.Node.Exec(ctx, e.tool("etcdctl"), "--endpoints="+m.endpoint(), "snapshot", "save", path)
		return err
	})
}

// first asks one member after the other until one answers.
func (e *Etcd) first(ask func(*EtcdMember) error) (err error) {
	for _, m := range e.Members {
		if err = ask(m); err == nil {
			return nil
		}
	}
	return err
}
