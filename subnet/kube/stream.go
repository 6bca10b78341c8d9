package kube

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// readObject reads an object of a Kubernetes API from a stream that holds nothing
// else. read is called with its size and reads all of it.
func readObject(in *bufio.Reader, read func(size uint64) error) error {
	start, err := readMessage(in, nil, uint64(len(envelopePrefix)))
	if err != nil {
		return err
	}
	if string(start) != envelopePrefix {
		return errNoEnvelope
	}
	return readFields(in, math.MaxUint64, func(number protowire.Number, size uint64) error {
		if number == envelopeRaw {
			return read(size)
		}
		return skip(in, size)
	})
}

// readFields visits the length-delimited fields of a protobuf message of this size
// in a stream; math.MaxUint64 is one that ends with the stream. visit reads all of
// the field.
func readFields(in *bufio.Reader, size uint64, visit func(number protowire.Number, size uint64) error) error {
	for left := size; left > 0; {
		tag, n, err := readVarint(in)
		if size == math.MaxUint64 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
		value, m, err := readVarint(in)
		if err != nil {
			return noEOF(err)
		}
		used := n + m
		number, kind := protowire.DecodeTag(tag)
		switch kind {
		case protowire.VarintType:
		case protowire.BytesType:
			if value > left {
				return fmt.Errorf("a field of %d bytes in a message of %d", value, size)
			}
			used += value
			if err := visit(number, value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("a field of wire type %d, which no list has", kind)
		}
		if used > left {
			return fmt.Errorf("a field that is longer than its message of %d bytes", size)
		}
		left -= used
	}
	return nil
}

// readMessage reads a message of this size into a buffer.
func readMessage(in *bufio.Reader, buffer []byte, size uint64) ([]byte, error) {
	if size > maxFrame {
		return nil, fmt.Errorf("an object of %d bytes, at most %d are allowed", size, maxFrame)
	}
	buffer = slices.Grow(buffer[:0], int(size))[:size]
	_, err := io.ReadFull(in, buffer)
	return buffer, noEOF(err)
}

func skip(in *bufio.Reader, size uint64) error {
	_, err := io.CopyN(io.Discard, in, int64(size))
	return noEOF(err)
}

// readVarint returns a number and of how many bytes it was made.
func readVarint(in *bufio.Reader) (value, size uint64, err error) {
	text, err := in.Peek(binary.MaxVarintLen64)
	value, n := protowire.ConsumeVarint(text)
	switch {
	case n >= 0:
		_, err = in.Discard(n)
		return value, uint64(n), err
	case len(text) == 0:
		return 0, 0, err
	case err == nil:
		err = protowire.ParseError(n)
	}
	return 0, 0, noEOF(err)
}

// noEOF is for where a stream may not end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
