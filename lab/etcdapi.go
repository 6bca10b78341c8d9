package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// The lab speaks to etcd through its JSON gateway: the few requests it makes
// need no client library, and etcdctl takes no key with a zero byte and no large
// value as an argument. Bytes are base64 there, which is what encoding/json
// makes of []byte, and 64-bit numbers are strings.

type keyValue struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

type keyRange struct {
	Key []byte `json:"key"`
	End []byte `json:"range_end,omitempty"`
}

// withPrefix returns the range of all keys that begin with prefix.
func withPrefix(prefix string) keyRange {
	end := []byte(prefix)
	end[len(end)-1]++
	return keyRange{Key: []byte(prefix), End: end}
}

type rangeResponse struct {
	Header struct {
		Revision int64 `json:"revision,string"`
	} `json:"header"`
	KVs []keyValue `json:"kvs"`
}

// Put writes a key.
func (e *Etcd) Put(ctx context.Context, key, value string) error {
	return e.call(ctx, "kv/put", keyValue{[]byte(key), []byte(value)}, nil)
}

// PutLeased writes a key that the store drops after a day.
func (e *Etcd) PutLeased(ctx context.Context, key, value string) error {
	var lease struct {
		ID string `json:"ID"`
	}
	if err := e.call(ctx, "lease/grant", map[string]int{"TTL": 86400}, &lease); err != nil {
		return err
	}
	return e.call(ctx, "kv/put", struct {
		keyValue
		Lease string `json:"lease"`
	}{keyValue{[]byte(key), []byte(value)}, lease.ID}, nil)
}

// Delete removes a key.
func (e *Etcd) Delete(ctx context.Context, key string) error {
	return e.call(ctx, "kv/deleterange", keyRange{Key: []byte(key)}, nil)
}

// DeletePrefix removes all keys that begin with prefix.
func (e *Etcd) DeletePrefix(ctx context.Context, prefix string) error {
	return e.call(ctx, "kv/deleterange", withPrefix(prefix), nil)
}

// List returns the keys that begin with prefix and their values.
func (e *Etcd) List(ctx context.Context, prefix string) (map[string]string, error) {
	var resp rangeResponse
	if err := e.call(ctx, "kv/range", withPrefix(prefix), &resp); err != nil {
		return nil, err
	}
	found := make(map[string]string, len(resp.KVs))
	for _, kv := range resp.KVs {
		found[string(kv.Key)] = string(kv.Value)
	}
	return found, nil
}

// Revision returns the store's current revision.
func (e *Etcd) Revision(ctx context.Context) (int64, error) {
	var resp rangeResponse
	err := e.call(ctx, "kv/range", keyRange{Key: []byte("/")}, &resp)
	return resp.Header.Revision, err
}

// Compact forgets all revisions before the current one.
func (e *Etcd) Compact(ctx context.Context) error {
	rev, err := e.Revision(ctx)
	if err != nil {
		return err
	}
	return e.call(ctx, "kv/compaction", map[string]any{"revision": rev, "physical": true}, nil)
}

// DenyWrites makes the store refuse to write, as when its quota is used up.
func (e *Etcd) DenyWrites(ctx context.Context, deny bool) error {
	action := "DEACTIVATE"
	if deny {
		action = "ACTIVATE"
	}
	return e.call(ctx, "maintenance/alarm", map[string]any{"action": action, "memberID": "1", "alarm": "NOSPACE"}, nil)
}

// Snapshot writes a snapshot of the store to a file for Restore.
func (e *Etcd) Snapshot(ctx context.Context, path string) error {
	resp, err := e.post(ctx, "maintenance/snapshot", struct{}{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := copyBlobs(f, resp.Body); err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	return f.Close()
}

// copyBlobs writes out the pieces of a snapshot stream.
func copyBlobs(w io.Writer, r io.Reader) error {
	for dec := json.NewDecoder(r); ; {
		var part struct {
			Result struct {
				Blob []byte `json:"blob"`
			} `json:"result"`
			Error json.RawMessage `json:"error"`
		}
		err := dec.Decode(&part)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if part.Error != nil {
			return errors.New(string(part.Error))
		}
		if _, err := w.Write(part.Result.Blob); err != nil {
			return err
		}
	}
}

func (e *Etcd) call(ctx context.Context, method string, request, response any) error {
	resp, err := e.post(ctx, method, request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if response == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(response)
	}
	if err != nil {
		return fmt.Errorf("etcd %s: %w", method, err)
	}
	return nil
}

// post returns the response of the first member that answers to a request; the
// caller closes its body.
func (e *Etcd) post(ctx context.Context, method string, request any) (resp *http.Response, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	for _, m := range e.Members {
		if resp, err = m.post(ctx, method, body); err == nil {
			return resp, nil
		}
	}
	return nil, err
}

func (m *EtcdMember) post(ctx context.Context, method string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.endpoint()+"/v3/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := m.etcd.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("etcd %s: %w", method, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("etcd %s: %s: %s", method, resp.Status, text)
	}
	return resp, nil
}
