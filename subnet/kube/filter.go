package kube

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// The kubelets of a cluster write their Nodes all the time, and hardly ever what
// a lease is made of. Events that change nothing of it are dropped as they come
// from the connection: to hand one on from goroutine to goroutine costs far more
// than to see that it changes nothing.

const (
	// filterBuffer is how much is read at once, in bytes.
	filterBuffer = 32 << 10
	// maxFrame is more than any object of a Kubernetes API can have, in bytes.
	maxFrame = 16 << 20
	// frameHeader is the size of the length before each frame, in bytes.
	frameHeader = 4
)

// The numbers of the fields in the messages of a watch, and what the raw object
// in one starts with (the runtime.Unknown of apimachinery).
const (
	eventType    = 1
	eventObject  = 2
	extensionRaw = 1
	envelopeRaw  = 2

	envelopePrefix = "k8s\x00"
)

// watchFilter decodes the events of a watch on Nodes and drops those that change
// nothing that a lease is made of. It is a watch.Decoder.
type watchFilter struct {
	body   io.Closer
	in     *bufio.Reader
	prefix string
	// frame is the present one, without the length before it.
	frame []byte
	// passed is the fingerprint of each Node when it was passed on last.
	passed map[string]uint64
	// dropped is the resource version of the last event if that was dropped.
	dropped []byte
	// err is the end of the stream.
	err error
}

// newWatchFilter takes over passed.
func newWatchFilter(body io.ReadCloser, prefix string, passed map[string]uint64) *watchFilter {
	return &watchFilter{body: body, in: bufio.NewReaderSize(body, filterBuffer), prefix: prefix, passed: passed}
}

// Close implements watch.Decoder.
func (f *watchFilter) Close() { f.body.Close() }

// Decode implements watch.Decoder. At the end it returns a bookmark with the
// resource version of events that were dropped: the next watch continues there, and
// need not list all Nodes because the server has forgotten an older version.
func (f *watchFilter) Decode() (watch.EventType, runtime.Object, error) {
	for {
		if f.err == nil {
			f.err = f.next()
		}
		switch {
		case f.err != nil && len(f.dropped) > 0:
			n := &Node{}
			n.ResourceVersion, f.dropped = string(f.dropped), nil
			return watch.Bookmark, n, nil
		case f.err != nil:
			return "", nil, f.err
		}
		kind, object, err := unmarshalEvent(f.frame)
		if err != nil {
			return "", nil, err
		}
		if kind == watch.Error {
			status := &metav1.Status{}
			return kind, status, status.Unmarshal(object)
		}
		changed, err := f.changed(kind, object)
		if err != nil {
			return "", nil, fmt.Errorf("decode Node: %w", err)
		}
		if changed {
			n := &Node{}
			return kind, n, n.unmarshal(object, f.prefix)
		}
	}
}

// next reads a frame.
func (f *watchFilter) next() error {
	var header [frameHeader]byte
	if _, err := io.ReadFull(f.in, header[:]); err != nil {
		return err
	}
	var err error
	f.frame, err = readMessage(f.in, f.frame, uint64(binary.BigEndian.Uint32(header[:])))
	return err
}

// changed reports whether an event may change a lease.
func (f *watchFilter) changed(kind watch.EventType, object []byte) (bool, error) {
	name, version, print, err := fingerprint(object, f.prefix)
	if err != nil {
		return false, err
	}
	f.dropped = f.dropped[:0]
	switch kind {
	case watch.Added, watch.Modified:
		was, known := f.passed[name]
		f.passed[name] = print
		if kind == watch.Modified && known && was == print {
			f.dropped = append(f.dropped, version...)
			return false, nil
		}
	case watch.Deleted:
		delete(f.passed, name)
	}
	return true, nil
}

// fingerprintSeed is that of all fingerprints of this process.
var fingerprintSeed = maphash.MakeSeed()

// fingerprint returns the name and the resource version of a Node, and a number
// that differs if anything else differs that a lease is made of.
func fingerprint(node []byte, prefix string) (name string, version []byte, print uint64, err error) {
	err = visitLeaseFields(node, prefix, func(part, number protowire.Number, data, field []byte) error {
		switch {
		case part == nodeMetadata && number == metaName:
			name = string(data)
			return nil
		case part == nodeMetadata && number == metaResourceVersion:
			version = data
			return nil
		}
		var h maphash.Hash
		h.SetSeed(fingerprintSeed)
		h.WriteByte(byte(part))
		h.Write(field)
		print += h.Sum64() // the order of annotations means nothing
		return nil
	})
	return name, version, print, err
}

// unmarshalEvent takes the object out of an event of a watch.
func unmarshalEvent(event []byte) (kind watch.EventType, object []byte, err error) {
	text, err := field(event, eventType)
	if err != nil {
		return "", nil, err
	}
	extension, err := field(event, eventObject)
	if err != nil {
		return "", nil, err
	}
	raw, err := field(extension, extensionRaw)
	if err != nil {
		return "", nil, err
	}
	object, err = unwrap(raw)
	return watch.EventType(text), object, err
}

var errNoEnvelope = fmt.Errorf("an object that does not start with %q", envelopePrefix)

// unwrap takes an object out of the envelope that each object of a Kubernetes API
// has.
func unwrap(raw []byte) (object []byte, err error) {
	envelope, found := bytes.CutPrefix(raw, []byte(envelopePrefix))
	if !found {
		return nil, errNoEnvelope
	}
	return field(envelope, envelopeRaw)
}
