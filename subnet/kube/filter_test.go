package kube

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// heartbeat is the part of a Node that changes all the time.
func heartbeat(text string) message { return message{}.bytes(5, message{}.text(1, text)) }

// nodeText is a Node with these annotations, each a key and a value, and pod
// CIDRs.
func nodeText(uid, status string, annotations [][2]string, podCIDRs ...string) []byte {
	meta := message{}.text(metaName, "n1").text(metaUID, uid).text(metaResourceVersion, status).
		bytes(metaCreationTimestamp, message{}.number(1, 1700000000))
	for _, a := range annotations {
		meta = meta.bytes(metaAnnotations, message{}.text(mapKey, a[0]).text(2, a[1]))
	}
	spec := message{}
	for _, p := range podCIDRs {
		spec = spec.text(specPodCIDRs, p)
	}
	return message{}.bytes(nodeMetadata, meta).bytes(nodeSpec, spec).bytes(3, heartbeat(status))
}

// frameOf is an event as it comes from the server.
func frameOf(kind string, object []byte) []byte {
	envelope := message{}.bytes(1, message{}.text(1, "v1").text(2, "Node")).bytes(envelopeRaw, object)
	event := message{}.text(eventType, kind).bytes(eventObject, message{}.bytes(extensionRaw, append([]byte(envelopePrefix), envelope...)))
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...)
}

func TestAWatchDropsWhatChangesNoLease(t *testing.T) {
	ip, mac := [2]string{prefix + "public-ip", "192.0.2.1"}, [2]string{prefix + "backend-data", "{}"}
	other := [2]string{"example.com/heartbeat", "1"}
	node := func(uid, status string, annotations ...[2]string) []byte {
		return nodeText(uid, status, annotations, "10.244.3.0/24", "fd00::/64")
	}
	steps := []struct {
		what, kind string
		object     []byte
		passes     bool
	}{
		{"it is there", "ADDED", node("u", "1", ip, mac, other), true},
		{"a status", "MODIFIED", node("u", "2", ip, mac, other), false},
		{"somebody else's annotation", "MODIFIED", node("u", "3", ip, mac, [2]string{"example.com/heartbeat", "2"}), false},
		{"another order", "MODIFIED", node("u", "4", mac, ip), false},
		{"another address", "MODIFIED", node("u", "5", [2]string{prefix + "public-ip", "192.0.2.2"}, mac), true},
		{"the same again", "MODIFIED", node("u", "6", [2]string{prefix + "public-ip", "192.0.2.2"}, mac), false},
		{"the first address", "MODIFIED", node("u", "7", ip, mac), true},
		{"a blank before the data", "MODIFIED", node("u", "8", ip, [2]string{prefix + "backend-data", " {}"}), true},
		{"no annotation", "MODIFIED", node("u", "9"), true},
		{"another pod CIDR", "MODIFIED", nodeText("u", "10", nil, "10.244.4.0/24"), true},
		{"a bookmark", "BOOKMARK", message{}.bytes(nodeMetadata, message{}.text(metaResourceVersion, "11")), true},
		{"still the same", "MODIFIED", nodeText("u", "12", nil, "10.244.4.0/24"), false},
		{"another Node of this name", "MODIFIED", nodeText("v", "13", nil, "10.244.4.0/24"), true},
		{"it goes", "DELETED", nodeText("v", "14", nil, "10.244.4.0/24"), true},
		{"it comes back changed", "MODIFIED", nodeText("v", "15", nil, "10.244.4.0/24"), true},
		{"it is there once more", "ADDED", nodeText("v", "16", nil, "10.244.4.0/24"), true},
		{"an error", "ERROR", message{}.text(1, "status"), true},
		{"garbage", "MODIFIED", []byte("\xff\xff"), true},
	}
	var all, want []byte
	for _, s := range steps {
		all = append(all, frameOf(s.kind, s.object)...)
		if s.passes {
			want = append(want, frameOf(s.kind, s.object)...)
		}
	}
	// Nothing is held back until something else comes.
	one := newWatchFilter(io.NopCloser(bytes.NewReader(all)), prefix)
	for _, s := range steps {
		if err := one.next(); err != nil || one.changed(one.frame[frameHeader:]) != s.passes {
			t.Errorf("%s: passes: %t, %v", s.what, !s.passes, err)
		}
	}
	for name, in := range map[string]io.Reader{"whole": bytes.NewReader(all), "byte by byte": iotest.OneByteReader(bytes.NewReader(all))} {
		got, err := io.ReadAll(newWatchFilter(io.NopCloser(in), prefix))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	cut := io.NopCloser(bytes.NewReader(all[:len(all)-1]))
	if _, err := io.ReadAll(newWatchFilter(cut, prefix)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
}

// heartbeatsAreLeftOut checks the filter against what a real server sends.
func heartbeatsAreLeftOut(t *testing.T, h *harness) {
	h.must(t, h.server.API.CreateNode(h.ctx(t), "beating", "10.5.1.0/24"))
	c, err := newClient(h.options(t, "beating"), prefix, func(error) {})
	h.must(t, err)
	defer c.close()
	w, err := c.watch(h.ctx(t), metav1.ListOptions{ResourceVersion: "0"})
	h.must(t, err)
	defer w.Stop()
	<-w.ResultChan() // it is there
	h.must(t, h.server.API.Annotate(h.ctx(t), "beating", map[string]any{"example.com/heartbeat": "1"}))
	h.patch(t, "beating", `{"metadata":{"labels":{"changed":"too"}}}`)
	h.annotate(t, "beating", "public-ip", "192.0.2.1")
	e := <-w.ResultChan()
	if n, ok := e.Object.(*Node); !ok || n.Annotations[prefix+"public-ip"] != "192.0.2.1" {
		t.Errorf("got %v %+v", e.Type, e.Object)
	}
}

func TestAWatchEndsWithTheVersionOfWhatItDropped(t *testing.T) {
	node := func(version string) []byte { return nodeText("u", version, nil, "10.244.3.0/24") }
	in := append(frameOf("ADDED", node("1")), frameOf("MODIFIED", node("2"))...)
	in = append(in, frameOf("MODIFIED", node("3"))...)
	out, err := io.ReadAll(newWatchFilter(io.NopCloser(bytes.NewReader(in)), prefix))
	if err != nil {
		t.Fatal(err)
	}
	last, first := bytes.CutPrefix(out, frameOf("ADDED", node("1")))
	if !first || len(last) < frameHeader {
		t.Fatalf("got %q", out)
	}
	kind, object, err := unmarshalEvent(last[frameHeader:])
	var n Node
	if err := errors.Join(err, n.Unmarshal(object)); err != nil || kind != "BOOKMARK" || n.ResourceVersion != "3" || n.Name != "" {
		t.Errorf("%s %+v, %v; want a bookmark of version 3", kind, n.ObjectMeta, err)
	}
	whole := frameOf("ADDED", node("1"))
	if out, _ := io.ReadAll(newWatchFilter(io.NopCloser(bytes.NewReader(whole)), prefix)); !bytes.Equal(out, whole) {
		t.Errorf("nothing was dropped: got %q", out)
	}
}

func TestOnlyStreamsAreFiltered(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/vnd.kubernetes.protobuf;stream=watch": true,
		"application/vnd.kubernetes.protobuf":              false,
		"application/json;stream=watch":                    false,
		"":                                                 false,
	} {
		if got := isStream(contentType); got != want {
			t.Errorf("%q: %t", contentType, got)
		}
	}
}

// FuzzWatchFilter reads a hostile watch: what comes out is part of what went in,
// and perhaps a bookmark.
func FuzzWatchFilter(f *testing.F) {
	f.Add(append(frameOf("ADDED", encodedNode()), frameOf("MODIFIED", encodedNode())...))
	f.Add(binary.BigEndian.AppendUint32(nil, maxFrame+1))
	f.Add([]byte{0, 0, 0, 1})
	f.Add(frameOf("MODIFIED", protowire.AppendTag(nil, nodeMetadata, protowire.StartGroupType)))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := io.ReadAll(newWatchFilter(io.NopCloser(bytes.NewReader(in)), prefix))
		if len(out) > len(in)+64 || err == nil && len(out) == 0 && len(in) > 0 {
			t.Errorf("%d bytes of %d, %v", len(out), len(in), err)
		}
	})
}
