package kube

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// message builds protobuf text by hand.
type message []byte

func (m message) bytes(number protowire.Number, data []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, number, protowire.BytesType), data)
}

func (m message) text(number protowire.Number, text string) message {
	return m.bytes(number, []byte(text))
}

func (m message) number(number protowire.Number, value uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, number, protowire.VarintType), value)
}

// encodedNode is a Node with much that no lease needs.
func encodedNode() []byte {
	created := message{}.number(timeSeconds, 1700000000).number(timeNanos, 5)
	meta := message{}.text(metaName, "n1").text(2, "n").text(metaUID, "u").text(metaResourceVersion, "42").
		number(7, 3).bytes(metaCreationTimestamp, created).
		bytes(11, message{}.text(mapKey, "label").text(mapValue, "x")).
		bytes(metaAnnotations, message{}.text(mapKey, prefix+"public-ip").text(mapValue, "192.0.2.1")).
		bytes(metaAnnotations, message{}.text(mapKey, "empty")).
		bytes(17, message{}.text(1, "managed fields"))
	spec := message{}.text(specPodCIDR, "10.244.3.0/24").text(3, "provider").
		text(specPodCIDRs, "10.244.3.0/24").text(specPodCIDRs, "fd00::/64").number(4, 1)
	status := message{}.bytes(5, message{}.text(1, "Ready")).bytes(8, message{}.text(1, "image"))
	return message{}.bytes(nodeMetadata, meta).bytes(nodeSpec, spec).bytes(3, status)
}

func TestNodeFromProtobuf(t *testing.T) {
	var n Node
	if err := n.Unmarshal(encodedNode()); err != nil {
		t.Fatal(err)
	}
	if n.Name != "n1" || n.UID != "u" || n.ResourceVersion != "42" || !n.CreationTimestamp.Time.Equal(time.Unix(1700000000, 5)) {
		t.Errorf("metadata: %+v", n.ObjectMeta)
	}
	if want := map[string]string{prefix + "public-ip": "192.0.2.1", "empty": ""}; !maps.Equal(n.Annotations, want) {
		t.Errorf("annotations: %v, want %v", n.Annotations, want)
	}
	if want := []string{"10.244.3.0/24", "fd00::/64"}; !slices.Equal(n.podCIDRs(), want) {
		t.Errorf("pod CIDRs: %v, want %v", n.podCIDRs(), want)
	}
	n.strip(prefix)
	if len(n.Annotations) != 1 {
		t.Errorf("foreign annotations are kept: %v", n.Annotations)
	}
}

func TestNodesFromProtobuf(t *testing.T) {
	text := message{}.bytes(listMetadata, message{}.text(listMetaResourceVersion, "7").text(listMetaContinue, "more")).
		bytes(listItems, encodedNode()).bytes(listItems, encodedNode())
	var l NodeList
	if err := l.Unmarshal(text); err != nil || len(l.Items) != 2 || l.ResourceVersion != "7" || l.Continue != "more" || l.Items[1].Name != "n1" {
		t.Errorf("got %+v, %v", l, err)
	}
}

func TestTruncatedProtobufIsAnError(t *testing.T) {
	text := encodedNode()
	for i := range text {
		var n Node
		if n.Unmarshal(text[:i]) == nil && i > 0 && n.Spec.PodCIDRs != nil && n.Name == "" {
			t.Errorf("cut off after %d bytes: %+v", i, n)
		}
	}
	var n Node
	if n.Unmarshal(text[:len(text)-1]) == nil {
		t.Error("no error")
	}
}

func TestNodeFromJSON(t *testing.T) {
	var n Node
	err := json.Unmarshal([]byte(`{"kind":"Node","metadata":{"name":"n1","creationTimestamp":"2023-11-14T22:13:20Z"},
		"spec":{"podCIDR":"10.244.3.0/24"},"status":{"images":[{}]}}`), &n)
	if err != nil || n.Name != "n1" || !slices.Equal(n.podCIDRs(), []string{"10.244.3.0/24"}) || n.CreationTimestamp.Unix() != 1700000000 {
		t.Errorf("got %+v, %v", n, err)
	}
}

// FuzzNode reads hostile Nodes.
func FuzzNode(f *testing.F) {
	f.Add(encodedNode())
	k, err := newAnnotations(prefix)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var n Node
		if n.Unmarshal(text) != nil {
			return
		}
		l, ok := decodeLease(&n, &k, both)
		if !ok || l.Invalid != "" {
			return
		}
		// What was read can be said again and reads the same.
		again := apply(nil, k.encode(l.Attrs))
		l.Attrs.Untyped = false // a type is written in any case
		if a, err := k.decode(again, both); err != nil || !a.Equal(l.Attrs) {
			t.Errorf("%+v reads as %+v, %v", l.Attrs, a, err)
		}
		copied := n.deepCopy()
		if copied.Name != n.Name || len(copied.Annotations) != len(n.Annotations) {
			t.Error("a copy differs")
		}
	})
}
