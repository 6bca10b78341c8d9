package kube

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

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

	listMetaResourceVersion = 2
	listMetaContinue        = 3

	timeSeconds = 1
	timeNanos   = 2

	mapKey   = 1
	mapValue = 2

	eventType   = 1
	eventObject = 2

	extensionRaw = 1
	envelopeRaw  = 2
)

// envelopePrefix is how the envelope of an object starts.
const envelopePrefix = "k8s\x00"

// field is called with each length-delimited or numeric field of a message.
// Other kinds do not occur in what is read here.
type field func(number protowire.Number, data []byte, value uint64) error

// fields visits the fields of a message. data points into the message.
func fields(message []byte, visit field) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var data []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if err := visit(number, data, value); err != nil {
			return err
		}
	}
	return nil
}

// Reset implements what the protobuf serializer asks of a type.
func (n *Node) Reset() { *n = Node{} }

// Unmarshal reads the protobuf form of a Node and keeps what a lease needs.
func (n *Node) Unmarshal(message []byte) error {
	err := fields(message, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case nodeMetadata:
			return unmarshalMeta(&n.ObjectMeta, data)
		case nodeSpec:
			return n.Spec.unmarshal(data)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("decode Node: %w", err)
	}
	return nil
}

func unmarshalMeta(m *metav1.ObjectMeta, message []byte) error {
	return fields(message, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case metaName:
			m.Name = string(data)
		case metaUID:
			m.UID = types.UID(data)
		case metaResourceVersion:
			m.ResourceVersion = string(data)
		case metaCreationTimestamp:
			return unmarshalTime(&m.CreationTimestamp, data)
		case metaAnnotations:
			return unmarshalAnnotation(m, data)
		}
		return nil
	})
}

func unmarshalTime(t *metav1.Time, message []byte) error {
	var seconds, nanos int64
	err := fields(message, func(number protowire.Number, _ []byte, value uint64) error {
		switch number {
		case timeSeconds:
			seconds = int64(value)
		case timeNanos:
			nanos = int64(value)
		}
		return nil
	})
	t.Time = time.Unix(seconds, nanos)
	return err
}

func unmarshalAnnotation(m *metav1.ObjectMeta, message []byte) error {
	var key, value string
	err := fields(message, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case mapKey:
			key = string(data)
		case mapValue:
			value = string(data)
		}
		return nil
	})
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[key] = value
	return err
}

func (s *NodeSpec) unmarshal(message []byte) error {
	return fields(message, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case specPodCIDR:
			s.PodCIDR = string(data)
		case specPodCIDRs:
			s.PodCIDRs = append(s.PodCIDRs, string(data))
		}
		return nil
	})
}

// Reset implements what the protobuf serializer asks of a type.
func (l *NodeList) Reset() { *l = NodeList{} }

// Unmarshal reads the protobuf form of a list of Nodes.
func (l *NodeList) Unmarshal(message []byte) error {
	err := fields(message, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case listMetadata:
			return unmarshalListMeta(&l.ListMeta, data)
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

func unmarshalListMeta(m *metav1.ListMeta, message []byte) error {
	return fields(message, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case listMetaResourceVersion:
			m.ResourceVersion = string(data)
		case listMetaContinue:
			m.Continue = string(data)
		}
		return nil
	})
}

// strip drops the annotations that do not start with the prefix.
func (n *Node) strip(prefix string) {
	for key := range n.Annotations {
		if !strings.HasPrefix(key, prefix) {
			delete(n.Annotations, key)
		}
	}
}
