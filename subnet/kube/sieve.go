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

// A cluster's kubelets write their Nodes all the time, and hardly ever what
// matters here. Nearly all that a watch tells is left out as it comes from the
// connection: to decode it and to hand it on from goroutine to goroutine
// costs far more than to see that it says nothing.

// sieved returns a transport whose watches leave out what repeats itself.
func sieved(next http.RoundTripper, prefix string) http.RoundTripper {
	return transport(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil && isStream(resp.Header.Get("Content-Type")) {
			resp.Body = newSieve(resp.Body, prefix)
		}
		return resp, err
	})
}

type transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }

func isStream(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == protobufType && params["stream"] == "watch"
}

const (
	// sieveBuffer is how much is read at once, in bytes.
	sieveBuffer = 32 << 10
	// maxFrame is more than any object of a Kubernetes API can have, in bytes.
	maxFrame = 16 << 20
	// frameHeader is the length before each frame, in bytes.
	frameHeader = 4
)

// sieve reads the frames of a watch on Nodes and leaves out those that change
// nothing that a lease is made of.
type sieve struct {
	io.Closer
	in     *bufio.Reader
	prefix []byte
	seed   maphash.Seed
	// frame is the present one with its header, rest what of it was not asked
	// for yet.
	frame, rest []byte
	// passed is the mark of each Node when it was passed on last.
	passed map[string]uint64
}

func newSieve(body io.ReadCloser, prefix string) *sieve {
	return &sieve{
		Closer: body, in: bufio.NewReaderSize(body, sieveBuffer),
		prefix: []byte(prefix), seed: maphash.MakeSeed(), passed: map[string]uint64{},
	}
}

// Read implements io.Reader.
func (s *sieve) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
		if s.matters(s.frame[frameHeader:]) {
			s.rest = s.frame
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next reads a frame.
func (s *sieve) next() error {
	var header [frameHeader]byte
	if _, err := io.ReadFull(s.in, header[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > maxFrame {
		return fmt.Errorf("a watch sends %d bytes at once, at most %d are allowed", size, maxFrame)
	}
	s.frame = append(s.frame[:0], header[:]...)
	s.frame = append(s.frame, make([]byte, size)...)
	_, err := io.ReadFull(s.in, s.frame[frameHeader:])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// matters reports whether a frame may say something that the last one about
// the same Node did not. What is not understood matters: others will say so.
func (s *sieve) matters(frame []byte) bool {
	kind, object, err := unmarshalEvent(frame)
	if err != nil {
		return true
	}
	name, mark, err := s.mark(object)
	if err != nil || name == "" {
		return true
	}
	switch watch.EventType(kind) {
	case watch.Added, watch.Modified:
		was, known := s.passed[name]
		s.passed[name] = mark
		return kind == string(watch.Added) || !known || was != mark
	case watch.Deleted:
		delete(s.passed, name)
	}
	return true
}

// mark returns the name of a Node, and a number that differs when anything
// differs that a lease is made of.
func (s *sieve) mark(node []byte) (name string, mark uint64, err error) {
	// The numbers of what counts in metadata and in spec differ.
	add := func(number protowire.Number, data []byte) {
		var h maphash.Hash
		h.SetSeed(s.seed)
		h.WriteByte(byte(number))
		h.Write(data)
		mark += h.Sum64() // the order of annotations means nothing
	}
	meta := func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case metaName:
			name = string(data)
		case metaUID, metaCreationTimestamp:
			add(number, data)
		case metaAnnotations:
			ours, err := startsWith(data, s.prefix)
			if ours {
				add(number, data)
			}
			return err
		}
		return nil
	}
	err = fields(node, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case nodeMetadata:
			return fields(data, meta)
		case nodeSpec:
			return fields(data, func(number protowire.Number, data []byte, _ uint64) error {
				if number == specPodCIDR || number == specPodCIDRs {
					add(number, data)
				}
				return nil
			})
		}
		return nil
	})
	return name, mark, err
}

// startsWith reports whether the key of an entry of a map starts so.
func startsWith(entry, prefix []byte) (found bool, err error) {
	err = fields(entry, func(number protowire.Number, data []byte, _ uint64) error {
		if number == mapKey {
			found = bytes.HasPrefix(data, prefix)
		}
		return nil
	})
	return found, err
}

// unmarshalEvent takes the object out of an event of a watch, and out of the
// envelope that each object of a Kubernetes API has.
func unmarshalEvent(frame []byte) (kind string, object []byte, err error) {
	var raw []byte
	err = fields(frame, func(number protowire.Number, data []byte, _ uint64) error {
		switch number {
		case eventType:
			kind = string(data)
		case eventObject:
			return fields(data, func(number protowire.Number, data []byte, _ uint64) error {
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
	err = fields(envelope, func(number protowire.Number, data []byte, _ uint64) error {
		if number == envelopeRaw {
			object = data
		}
		return nil
	})
	return kind, object, err
}
