package kube

import (
	"bufio"
	"bytes"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		bytes(12, message{}.text(1, prefix+"empty")).
		bytes(12, message{}.text(1, "other").text(2, "x")).
		bytes(12, message{}.text(1, metav1.InitialEventsAnnotationKey).text(2, "true")).
		bytes(17, message{}.text(1, "managed fields"))
	spec := message{}.text(specPodCIDR, "10.244.3.0/24").text(3, "provider").
		text(specPodCIDRs, "10.244.3.0/24").text(specPodCIDRs, "fd00::/64").number(4, 1)
	status := message{}.bytes(5, message{}.text(1, "Ready")).bytes(8, message{}.text(1, "image"))
	return message{}.bytes(nodeMetadata, meta).bytes(nodeSpec, spec).bytes(3, status)
}

func TestNodeFromProtobuf(t *testing.T) {
	var n Node
	if err := n.unmarshal(encodedNode(), prefix); err != nil {
		t.Fatal(err)
	}
	want := metav1.ObjectMeta{
		Name: "n1", UID: "u", ResourceVersion: "42", CreationTimestamp: metav1.Unix(1700000000, 0),
		Annotations: map[string]string{prefix + "public-ip": "192.0.2.1", prefix + "empty": "", metav1.InitialEventsAnnotationKey: "true"},
	}
	if !reflect.DeepEqual(n.ObjectMeta, want) {
		t.Errorf("metadata: %+v, want %+v", n.ObjectMeta, want)
	}
	if want := []string{"10.244.3.0/24", "fd00::/64"}; !slices.Equal(n.podCIDRs(), want) {
		t.Errorf("pod CIDRs: %v, want %v", n.podCIDRs(), want)
	}
}

// encodedNodes is a list of two Nodes as an API server sends it.
func encodedNodes() []byte {
	list := message{}.bytes(listMetadata, message{}.text(2, "7").text(3, "more")).
		bytes(listItems, encodedNode()).bytes(listItems, encodedNode())
	return append([]byte(envelopePrefix), message{}.bytes(1, message{}.text(1, "v1")).bytes(envelopeRaw, list).text(3, "")...)
}

func TestNodesFromProtobuf(t *testing.T) {
	visited := 0
	l, err := readNodes(bufio.NewReader(bytes.NewReader(encodedNodes())), prefix, func(node []byte) error {
		visited++
		return nil
	})
	if err != nil || len(l.Items) != 2 || visited != 2 || l.ResourceVersion != "7" || l.Continue != "more" || l.Items[1].Name != "n1" {
		t.Errorf("got %+v, %v, %d visited", l, err, visited)
	}
}

func TestAListThatIsCutOffIsAnError(t *testing.T) {
	text := encodedNodes()
	end := bytes.LastIndex(text, encodedNode()) + len(encodedNode())
	for i := range end {
		if l, err := readNodes(bufio.NewReader(bytes.NewReader(text[:i])), prefix, nil); err == nil {
			t.Errorf("cut off after %d bytes: %+v", i, l)
		}
	}
}

// FuzzNodes reads hostile lists of Nodes.
func FuzzNodes(f *testing.F) {
	f.Add(encodedNodes())
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = readNodes(bufio.NewReader(bytes.NewReader(text)), prefix, nil)
	})
}

func TestTruncatedProtobufIsAnError(t *testing.T) {
	text := encodedNode()
	for i := range text {
		var n Node
		if n.unmarshal(text[:i], prefix) == nil && i > 0 && n.PodCIDRs != nil && n.Name == "" {
			t.Errorf("cut off after %d bytes: %+v", i, n)
		}
	}
	var n Node
	if n.unmarshal(text[:len(text)-1], prefix) == nil {
		t.Error("no error")
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
		if n.unmarshal(text, prefix) != nil {
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
