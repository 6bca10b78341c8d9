package kube

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
	created := message{}.number(1, 1700000000)
	meta := message{}.text(1, "n1").text(2, "n").text(5, "u").text(6, "42").
		number(7, 3).bytes(8, created).
		bytes(11, message{}.text(1, "label").text(2, "x")).
		bytes(12, message{}.text(1, prefix+"public-ip").text(2, "192.0.2.1")).
		bytes(12, message{}.text(1, "empty")).
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
	if text, found := n.Annotations["empty"]; !found || text != "" {
		t.Errorf("an empty annotation: %q, %t", text, found)
	}
	n.dropForeign(prefix)
	want := metav1.ObjectMeta{
		Name: "n1", UID: "u", ResourceVersion: "42", CreationTimestamp: metav1.Unix(1700000000, 0),
		Annotations: map[string]string{prefix + "public-ip": "192.0.2.1"},
	}
	if !reflect.DeepEqual(n.ObjectMeta, want) {
		t.Errorf("metadata: %+v, want %+v", n.ObjectMeta, want)
	}
	if want := []string{"10.244.3.0/24", "fd00::/64"}; !slices.Equal(n.podCIDRs(), want) {
		t.Errorf("pod CIDRs: %v, want %v", n.podCIDRs(), want)
	}
}

// TestForeignAnnotationsAreDropped decodes both forms of what the API server sends.
func TestForeignAnnotationsAreDropped(t *testing.T) {
	node := func(name string) string {
		return `{"kind":"Node","apiVersion":"v1","metadata":{"name":"` + name + `","labels":{"a":"b"},
			"annotations":{"other":"x","` + prefix + `public-ip":"192.0.2.1","k8s.io/initial-events-end":"true"}}}`
	}
	envelope := message{}.bytes(1, message{}.text(1, "v1").text(2, "Node")).bytes(2, encodedNode())
	c := newCodecs(newScheme(), prefix)
	for _, tt := range []struct{ kind, text string }{
		{jsonType, node("n1")},
		{jsonType, `{"kind":"NodeList","apiVersion":"v1","items":[` + node("n1") + `,` + node("n1") + `]}`},
		{protobufType, "k8s\x00" + string(envelope)},
	} {
		info, ok := runtime.SerializerInfoForMediaType(c.SupportedMediaTypes(), tt.kind)
		if !ok {
			t.Fatal(tt.kind)
		}
		obj, _, err := c.DecoderToVersion(info.Serializer, version).Decode([]byte(tt.text), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		nodes := []Node{}
		switch obj := obj.(type) {
		case *Node:
			nodes = append(nodes, *obj)
		case *NodeList:
			nodes = obj.Items
		}
		for _, n := range nodes {
			_, other := n.Annotations["other"]
			_, end := n.Annotations[metav1.InitialEventsAnnotationKey]
			if n.Name != "n1" || n.Annotations[prefix+"public-ip"] != "192.0.2.1" || other || end != (tt.kind == jsonType) {
				t.Errorf("%s: %+v", tt.text, n)
			}
		}
		if len(nodes) == 0 {
			t.Errorf("%s: no Node", tt.text)
		}
	}
}

func TestNodesFromProtobuf(t *testing.T) {
	text := message{}.bytes(listMetadata, message{}.text(2, "7").text(3, "more")).
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
		// What was read can be published again and reads the same.
		again := apply(nil, k.encode(l.Attrs))
		l.Attrs.Untyped = false // a type is written in any case
		if a, err := k.decode(again, both); err != nil || a != l.Attrs {
			t.Errorf("%+v reads as %+v, %v", l.Attrs, a, err)
		}
		copied := clone(&n)
		if copied.Name != n.Name || len(copied.Annotations) != len(n.Annotations) {
			t.Error("a copy differs")
		}
	})
}
