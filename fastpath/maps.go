package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// bpfObjects implements flowMaps.

func (o *bpfObjects) permit(k bpfKey, f bpfFlow) error {
	if err := o.Flows.Put(k, f); err != nil {
		return fmt.Errorf("permit a flow: %w", err)
	}
	return nil
}

func (o *bpfObjects) revoke(k bpfKey) error {
	if err := o.Flows.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

func (o *bpfObjects) way(k bpfKey) (w bpfWay, ok bool) {
	err := o.Ways.Lookup(k, &w)
	return w, err == nil
}

func (o *bpfObjects) forget(k bpfKey) { _ = o.Ways.Delete(k) } // it may not be there

func reportOf(raw []byte) (r bpfReport, err error) {
	if _, err := binary.Decode(raw, binary.NativeEndian, &r); err != nil {
		return r, fmt.Errorf("read a report of the programs: %w", err)
	}
	return r, nil
}
