package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// Node is the part of a Node object that a lease is made of. What a kubelet
// writes beside it, such as conditions and images, is skipped while decoding:
// it is most of the object and changes all the time.
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              NodeSpec `json:"spec"`
}

// NodeSpec holds the subnets that the cluster gave to the node.
type NodeSpec struct {
	PodCIDR  string   `json:"podCIDR,omitempty"`
	PodCIDRs []string `json:"podCIDRs,omitempty"`
}

// NodeList is one page of Nodes.
type NodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Node `json:"items"`
}

// podCIDRs returns the texts of the node's subnets.
func (n *Node) podCIDRs() []string {
	if len(n.Spec.PodCIDRs) == 0 && n.Spec.PodCIDR != "" {
		return []string{n.Spec.PodCIDR}
	}
	return n.Spec.PodCIDRs
}

// The numbers of the fields in Kubernetes' protobuf messages.
const (
	nodeMetadata = 1
	nodeSpec     = 2

	metaName              = 1
	metaUID               = 5
	metaResourceVersion   = 6
	metaCreationTimestamp = 8
	metaAnnotations       = 12

	specPodCIDR  = 1
	specPodCIDRs = 7

	listMetadata = 1
	listItems    = 2
)

// leaseFields are the fields of a Node that a lease is made of, by the message
// that they are in. There is no other list of them: what is decoded and what is
// noticed as a change both follow it.
var leaseFields = map[protowire.Number][]protowire.Number{
	nodeMetadata: {metaName, metaUID, metaResourceVersion, metaCreationTimestamp, metaAnnotations},
	nodeSpec:     {specPodCIDR, specPodCIDRs},
}

// visitLeaseFields visits these fields of a Node in its protobuf form. The rest is
// skipped: to decode it costs more than everything else.
func visitLeaseFields(node []byte, visit func(part, number protowire.Number, data, field []byte) error) error {
	return fields(node, func(part protowire.Number, message, _ []byte) error {
		wanted := leaseFields[part]
		if wanted == nil {
			return nil
		}
		return fields(message, func(number protowire.Number, data, field []byte) error {
			if !slices.Contains(wanted, number) {
				return nil
			}
			return visit(part, number, data, field)
		})
	})
}

// Unmarshal reads from the protobuf form of a Node what a lease is made of.
func (n *Node) Unmarshal(message []byte) error {
	err := visitLeaseFields(message, func(part, number protowire.Number, data, field []byte) error {
		if part == nodeMetadata {
			return n.ObjectMeta.Unmarshal(field) // which adds to what is there
		}
		return n.Spec.unmarshal(number, data)
	})
	if err != nil {
		return fmt.Errorf("decode Node: %w", err)
	}
	return nil
}

func (s *NodeSpec) unmarshal(number protowire.Number, data []byte) error {
	switch number {
	case specPodCIDR:
		s.PodCIDR = string(data)
	case specPodCIDRs:
		s.PodCIDRs = append(s.PodCIDRs, string(data))
	}
	return nil
}

// Unmarshal reads the protobuf form of a list of Nodes.
func (l *NodeList) Unmarshal(message []byte) error {
	err := fields(message, func(number protowire.Number, data, _ []byte) error {
		switch number {
		case listMetadata:
			return l.ListMeta.Unmarshal(data)
		case listItems:
			l.Items = append(l.Items, Node{})
			return l.Items[len(l.Items)-1].Unmarshal(data)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("decode Nodes: %w", err)
	}
	return nil
}

// fields visits the length-delimited fields of a protobuf message: data is the
// content of a field, and field the whole of it. Both point into the message.
func fields(message []byte, visit func(number protowire.Number, data, field []byte) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		field := message[:tag+size]
		message = message[tag+size:]
		if kind != protowire.BytesType {
			continue
		}
		data, _ := protowire.ConsumeBytes(field[tag:])
		if err := visit(number, data, field); err != nil {
			return err
		}
	}
	return nil
}

// Reset implements what the protobuf serializer asks of a type.
func (n *Node) Reset() { *n = Node{} }

// Reset implements what the protobuf serializer asks of a type.
func (l *NodeList) Reset() { *l = NodeList{} }

// DeepCopyObject implements runtime.Object.
func (n *Node) DeepCopyObject() runtime.Object {
	out := *n
	n.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.PodCIDRs = slices.Clone(n.Spec.PodCIDRs)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *NodeList) DeepCopyObject() runtime.Object {
	out := &NodeList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*Node))
	}
	return out
}

// version is the API version that all requests are made in.
var version = schema.GroupVersion{Version: "v1"}

// newScheme knows the two types and what every API server answers with.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(version.WithKind("Node"), &Node{})
	s.AddKnownTypeWithName(version.WithKind("NodeList"), &NodeList{})
	metav1.AddToGroupVersion(s, version)
	return s
}

// codecs decode what the API server sends, and drop from the Nodes in it the
// annotations that do not start with the prefix.
type codecs struct {
	runtime.NegotiatedSerializer
	prefix string
}

func newCodecs(scheme *runtime.Scheme, prefix string) codecs {
	return codecs{serializer.NewCodecFactory(scheme).WithoutConversion(), prefix}
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (c codecs) DecoderToVersion(d runtime.Decoder, v runtime.GroupVersioner) runtime.Decoder {
	return decoder{c.NegotiatedSerializer.DecoderToVersion(d, v), c.prefix}
}

type decoder struct {
	runtime.Decoder
	prefix string
}

// Decode implements runtime.Decoder.
func (d decoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, kind, err := d.Decoder.Decode(data, defaults, into)
	switch obj := obj.(type) {
	case *Node:
		obj.dropForeign(d.prefix)
	case *NodeList:
		for i := range obj.Items {
			obj.Items[i].dropForeign(d.prefix)
		}
	}
	return obj, kind, err
}

// dropForeign drops the annotations that do not start with the prefix, except the
// one that client-go's reflector reads.
func (n *Node) dropForeign(prefix string) {
	maps.DeleteFunc(n.Annotations, func(key, _ string) bool {
		return !strings.HasPrefix(key, prefix) && key != metav1.InitialEventsAnnotationKey
	})
}
