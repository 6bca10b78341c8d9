package kube

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"mime"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/watch"
)

// The kubelets of a cluster write their Nodes all the time, and hardly ever what
// a lease is made of. Events that change nothing of it are dropped as they come
// from the connection: to hand one on from goroutine to goroutine costs far more
// than to see that it changes nothing.

// filtered returns a transport whose watches drop events that change no lease.
func filtered(next http.RoundTripper, prefix string) http.RoundTripper {
	return transport(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil && isStream(resp.Header.Get("Content-Type")) {
			resp.Body = newWatchFilter(resp.Body, prefix)
		}
		return resp, err
	})
}

func isStream(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == protobufType && params["stream"] == "watch"
}

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

	mapKey = 1
)

// watchFilter reads the frames of a watch on Nodes and drops those that change
// nothing that a lease is made of.
type watchFilter struct {
	io.Closer
	in     *bufio.Reader
	prefix []byte
	seed   maphash.Seed
	// frame is the present one with its header, rest the part of it that was not
	// read yet.
	frame, rest []byte
	// passed is the fingerprint of each Node when it was passed on last.
	passed map[string]uint64
	// dropped is the resource version of the last event if that was dropped.
	dropped []byte
	// err is the end of the stream.
	err error
}

func newWatchFilter(body io.ReadCloser, prefix string) *watchFilter {
	return &watchFilter{
		Closer: body, in: bufio.NewReaderSize(body, filterBuffer),
		prefix: []byte(prefix), seed: maphash.MakeSeed(), passed: map[string]uint64{},
	}
}

// Read implements io.Reader.
func (f *watchFilter) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.err = f.next(); f.err != nil {
			f.rest = f.bookmark()
			continue
		}
		if f.changed(f.frame[frameHeader:]) {
			f.rest = f.frame
			f.dropped = f.dropped[:0]
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next reads a frame.
func (f *watchFilter) next() error {
	var header [frameHeader]byte
	if _, err := io.ReadFull(f.in, header[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > maxFrame {
		return fmt.Errorf("a watch sends %d bytes at once, at most %d are allowed", size, maxFrame)
	}
	f.frame = append(f.frame[:0], header[:]...)
	f.frame = append(f.frame, make([]byte, size)...)
	_, err := io.ReadFull(f.in, f.frame[frameHeader:])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// bookmark returns a frame with the resource version of events that were dropped,
// or nothing: the next watch continues there, and need not list all Nodes because
// the server has forgotten an older version.
func (f *watchFilter) bookmark() []byte {
	if len(f.dropped) == 0 {
		return nil
	}
	field := func(number protowire.Number, data []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), data)
	}
	node := field(nodeMetadata, field(metaResourceVersion, f.dropped))
	kind := append(field(1, []byte("v1")), field(2, []byte("Node"))...)
	envelope := append([]byte(envelopePrefix), append(field(1, kind), field(envelopeRaw, node)...)...)
	event := append(field(eventType, []byte(watch.Bookmark)), field(eventObject, field(extensionRaw, envelope))...)
	f.dropped = nil
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...)
}

// changed reports whether an event may change a lease. What is not understood may:
// others will report it.
func (f *watchFilter) changed(event []byte) bool {
	kind, object, err := unmarshalEvent(event)
	if err != nil {
		return true
	}
	name, version, print, err := f.fingerprint(object)
	if err != nil || name == "" {
		return true
	}
	switch watch.EventType(kind) {
	case watch.Added, watch.Modified:
		was, known := f.passed[name]
		f.passed[name] = print
		if kind == string(watch.Added) || !known || was != print {
			return true
		}
		f.dropped = append(f.dropped[:0], version...)
		return false
	case watch.Deleted:
		delete(f.passed, name)
	}
	return true
}

// fingerprint returns the name and the resource version of a Node, and a number
// that differs if anything else differs that a lease is made of.
func (f *watchFilter) fingerprint(node []byte) (name string, version []byte, print uint64, err error) {
	err = visitLeaseFields(node, func(part, number protowire.Number, data, field []byte) error {
		switch {
		case part == nodeMetadata && number == metaName:
			name = string(data)
			return nil
		case part == nodeMetadata && number == metaResourceVersion:
			version = data
			return nil
		case part == nodeMetadata && number == metaAnnotations:
			if ours, err := startsWith(data, f.prefix); !ours || err != nil {
				return err
			}
		}
		var h maphash.Hash
		h.SetSeed(f.seed)
		h.WriteByte(byte(part))
		h.Write(field)
		print += h.Sum64() // the order of annotations means nothing
		return nil
	})
	return name, version, print, err
}

// startsWith reports whether the key of an entry of a map has a prefix.
func startsWith(entry, prefix []byte) (found bool, err error) {
	err = fields(entry, func(number protowire.Number, data, _ []byte) error {
		if number == mapKey {
			found = bytes.HasPrefix(data, prefix)
		}
		return nil
	})
	return found, err
}

// unmarshalEvent takes the object out of an event of a watch, and out of the
// envelope that each object of a Kubernetes API has.
func unmarshalEvent(event []byte) (kind string, object []byte, err error) {
	var raw []byte
	err = fields(event, func(number protowire.Number, data, _ []byte) error {
		switch number {
		case eventType:
			kind = string(data)
		case eventObject:
			return fields(data, func(number protowire.Number, data, _ []byte) error {
				if number == extensionRaw {
					raw = data
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	envelope, found := bytes.CutPrefix(raw, []byte(envelopePrefix))
	if !found {
		return "", nil, fmt.Errorf("an object that does not start with %q", envelopePrefix)
	}
	err = fields(envelope, func(number protowire.Number, data, _ []byte) error {
		if number == envelopeRaw {
			object = data
		}
		return nil
	})
	return kind, object, err
}
