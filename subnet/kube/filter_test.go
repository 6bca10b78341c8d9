package kube

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
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
	}
	var all []byte
	want := []string{}
	for _, s := range steps {
		all = append(all, frameOf(s.kind, s.object)...)
		if s.passes {
			want = append(want, s.what)
		}
	}
	for name, in := range map[string]io.Reader{"whole": bytes.NewReader(all), "byte by byte": iotest.OneByteReader(bytes.NewReader(all))} {
		got, err := decodeAll(in)
		passed := []string{}
		for _, e := range got {
			version, _ := strconv.Atoi(e.Object.(*Node).ResourceVersion)
			passed = append(passed, steps[version-1].what)
			if step := steps[version-1]; string(e.Type) != step.kind {
				t.Errorf("%s: %s is %s", name, step.what, e.Type)
			}
		}
		if !errors.Is(err, io.EOF) || !slices.Equal(passed, want) {
			t.Errorf("%s: %v, %v; want %v", name, passed, err, want)
		}
	}
}

// decodeAll returns the events of a watch, and what ended it.
func decodeAll(in io.Reader) (all []watch.Event, err error) {
	f := newWatchFilter(io.NopCloser(in), prefix, map[string]uint64{})
	for {
		kind, object, err := f.Decode()
		if err != nil {
			return all, err
		}
		all = append(all, watch.Event{Type: kind, Object: object})
	}
}

func TestAWatchEndsWithWhatIsWrong(t *testing.T) {
	good := frameOf("ADDED", encodedNode())
	for what, tt := range map[string]struct {
		in   []byte
		want string
	}{
		"cut off":       {good[:len(good)-1], io.ErrUnexpectedEOF.Error()},
		"a short frame": {[]byte{0, 0}, io.ErrUnexpectedEOF.Error()},
		"a large frame": {binary.BigEndian.AppendUint32(nil, maxFrame+1), "at most"},
		"no envelope":   {[]byte{0, 0, 0, 0}, "does not start with"},
		"garbage":       {frameOf("MODIFIED", []byte("\xff\xff")), "decode Node"},
	} {
		if got, err := decodeAll(bytes.NewReader(tt.in)); len(got) > 0 || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	got, err := decodeAll(bytes.NewReader(frameOf("ERROR", message{}.text(2, "Failure").text(3, "too old").number(6, 410))))
	if !errors.Is(err, io.EOF) || len(got) != 1 || got[0].Type != watch.Error || got[0].Object.(*metav1.Status).Code != 410 {
		t.Errorf("an error of the server: %v, %v", got, err)
	}
}

// heartbeatsAreLeftOut checks the filter against what a real server sends, in a
// watch that continues from a list.
func heartbeatsAreLeftOut(t *testing.T, h *harness) {
	h.must(t, h.server.API.CreateNode(h.ctx(t), "beating", "10.5.1.0/24"))
	m, err := New(h.options(t, "beating"))
	h.must(t, err)
	defer m.client.close()
	s := &source{m: m, condition: condPeers, selector: "metadata.name=beating"}
	list, err := s.list(h.ctx(t), metav1.ListOptions{})
	h.must(t, err)
	w, err := s.watch(h.ctx(t), metav1.ListOptions{ResourceVersion: list.(*NodeList).ResourceVersion})
	h.must(t, err)
	defer w.Stop()
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
	got, err := decodeAll(bytes.NewReader(in))
	if !errors.Is(err, io.EOF) || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	if n := got[1].Object.(*Node); got[1].Type != watch.Bookmark || n.ResourceVersion != "3" || n.Name != "" {
		t.Errorf("%s %+v; want a bookmark of version 3", got[1].Type, n.ObjectMeta)
	}
	if got, _ := decodeAll(bytes.NewReader(frameOf("ADDED", node("1")))); len(got) != 1 {
		t.Errorf("nothing was dropped: got %v", got)
	}
}

// FuzzWatchFilter reads a hostile watch: it has no more events than bytes.
func FuzzWatchFilter(f *testing.F) {
	f.Add(append(frameOf("ADDED", encodedNode()), frameOf("MODIFIED", encodedNode())...))
	f.Add(binary.BigEndian.AppendUint32(nil, maxFrame+1))
	f.Add([]byte{0, 0, 0, 1})
	f.Add(frameOf("MODIFIED", protowire.AppendTag(nil, nodeMetadata, protowire.StartGroupType)))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := decodeAll(bytes.NewReader(in)); len(got) > len(in) || err == nil {
			t.Errorf("%d events in %d bytes, %v", len(got), len(in), err)
		}
	})
}
