package vxlan

import (
	"errors"
	"fmt"

	"flannel/kernel"
	"flannel/subnet"
)

// data is what a node publishes about its device in one family.
type data struct {
	// VNI is -1 when the record names none.
	VNI int
	MAC kernel.MAC
}

// encode returns the text for a record. Other nodes cut the MAC out of it as text,
// so it has no spaces.
func (d data) encode() string { return fmt.Sprintf(`{"VNI":%d,"VtepMAC":"%s"}`, d.VNI, d.MAC) }

// parseData reads a record; the error is what is wrong with it.
func parseData(raw string) (data, error) {
	if raw == "" || raw == "null" {
		return data{}, errors.New("no backend data")
	}
	record, err := subnet.ParseBackendData(raw)
	if err != nil {
		return data{}, fmt.Errorf("backend data: %w", err)
	}
	mac, err := kernel.ParseMAC(record.VtepMAC)
	if err != nil {
		return data{}, fmt.Errorf("VtepMAC: %w", err)
	}
	if !mac.IsUnicast() {
		return data{}, fmt.Errorf("VtepMAC %s cannot be a host's", mac)
	}
	return data{record.VNI, mac}, nil
}
