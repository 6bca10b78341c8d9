package kube

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Node is the part of a Node object that a lease is made of. What a kubelet
// writes beside it, such as conditions and images, is skipped while decoding:
// it is most of the object and changes all the time.
type Node struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	// PodCIDR and PodCIDRs are the subnets that the cluster gave to the node.
	PodCIDR  string
	PodCIDRs []string
}

// NodeList is one page of Nodes.
type NodeList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Node
}

// podCIDRs returns the texts of the node's subnets.
func (n *Node) podCIDRs() []string {
	if len(n.PodCIDRs) == 0 && n.PodCIDR != "" {
		return []string{n.PodCIDR}
	}
	return n.PodCIDRs
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

	mapKey = 1

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

// visitLeaseFields visits these fields of a Node in its protobuf form, and of the
// annotations those whose keys start with the prefix. The rest is skipped: to
// decode it costs more than everything else.
func visitLeaseFields(node []byte, prefix string, visit func(part, number protowire.Number, data, field []byte) error) error {
	return fields(node, func(part protowire.Number, message, _ []byte) error {
		wanted := leaseFields[part]
		if wanted == nil {
			return nil
		}
		return fields(message, func(number protowire.Number, data, field []byte) error {
			if !slices.Contains(wanted, number) {
				return nil
			}
			if part == nodeMetadata && number == metaAnnotations {
				if ours, err := isOurs(data, prefix); !ours || err != nil {
					return err
				}
			}
			return visit(part, number, data, field)
		})
	})
}

// isOurs reports whether the key of an annotation starts with the prefix, or is
// the one that client-go's reflector reads.
func isOurs(entry []byte, prefix string) (bool, error) {
	key, err := field(entry, mapKey)
	return bytes.HasPrefix(key, []byte(prefix)) || string(key) == metav1.InitialEventsAnnotationKey, err
}

// unmarshal reads from the protobuf form of a Node what a lease is made of.
func (n *Node) unmarshal(message []byte, prefix string) error {
	err := visitLeaseFields(message, prefix, func(part, number protowire.Number, data, field []byte) error {
		if part == nodeMetadata {
			return n.ObjectMeta.Unmarshal(field) // which adds to what is there
		}
		switch number {
		case specPodCIDR:
			n.PodCIDR = string(data)
		case specPodCIDRs:
			n.PodCIDRs = append(n.PodCIDRs, string(data))
		default:
			return fmt.Errorf("field %d of the spec is not decoded", number)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("decode Node: %w", err)
	}
	return nil
}

// readNodes reads the protobuf form of a list of Nodes from a stream. visit, unless
// nil, is given each Node until it returns.
func readNodes(in *bufio.Reader, prefix string, visit func(node []byte) error) (*NodeList, error) {
	l := &NodeList{}
	err := readObject(in, func(size uint64) error {
		var message []byte
		return readFields(in, size, func(number protowire.Number, size uint64) (err error) {
			if number != listMetadata && number != listItems {
				return skip(in, size)
			}
			if message, err = readMessage(in, message, size); err != nil {
				return err
			}
			if number == listMetadata {
				return l.ListMeta.Unmarshal(message)
			}
			if visit != nil {
				if err := visit(message); err != nil {
					return err
				}
			}
			l.Items = append(l.Items, Node{})
			return l.Items[len(l.Items)-1].unmarshal(message, prefix)
		})
	})
	if err == nil && l.ResourceVersion == "" {
		err = errors.New("a list without a resource version")
	}
	if err != nil {
		return nil, fmt.Errorf("decode Nodes: %w", err)
	}
	return l, nil
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

// field returns the content of a length-delimited field of a message, nil if there
// is none.
func field(message []byte, wanted protowire.Number) (content []byte, err error) {
	err = fields(message, func(number protowire.Number, data, _ []byte) error {
		if number == wanted {
			content = data
		}
		return nil
	})
	return content, err
}

// DeepCopyObject implements runtime.Object.
func (n *Node) DeepCopyObject() runtime.Object {
	out := *n
	n.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.PodCIDRs = slices.Clone(n.PodCIDRs)
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
