package vxlan

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"flannel/kernel"
)

// data is what a node publishes about its device in one family.
type data struct {
	// VNI is -1 when the record names none.
	VNI int
	MAC kernel.MAC
}

// The two halves of the text around the VNI and the MAC. Other nodes cut the
// MAC out of it as text, so it has no spaces.
const (
	beforeVNI = `{"VNI":`
	beforeMAC = `,"VtepMAC":"`
	afterMAC  = `"}`
)

func (d data) encode() string {
	return beforeVNI + strconv.Itoa(d.VNI) + beforeMAC + d.MAC.String() + afterMAC
}

// parseData reads a record; the error is what is wrong with it.
func parseData(raw string) (data, error) {
	d, ok := parseUsual(raw)
	if !ok {
		var err error
		if d, err = parseAny(raw); err != nil {
			return data{}, err
		}
	}
	if !d.MAC.IsUnicast() {
		return data{}, fmt.Errorf("VtepMAC %s cannot be a host's", d.MAC)
	}
	return d, nil
}

// parseUsual reads the text that every node writes, without a general parser:
// it is done for each peer in each pass.
func parseUsual(raw string) (data, bool) {
	rest, found := strings.CutPrefix(strings.TrimLeft(raw, " "), beforeVNI)
	text, rest, split := strings.Cut(rest, beforeMAC)
	vni, errVNI := strconv.ParseUint(text, 10, 32)
	text, ended := strings.CutSuffix(rest, afterMAC)
	mac, errMAC := kernel.ParseMAC(text)
	return data{int(vni), mac}, found && split && ended && errVNI == nil && errMAC == nil
}

func parseAny(raw string) (data, error) {
	if raw == "" || raw == "null" {
		return data{}, fmt.Errorf("no backend data")
	}
	var record struct {
		VNI     *uint32
		VtepMAC string
	}
	if err := json.Unmarshal([]byte(raw), &record); err != nil {
		return data{}, fmt.Errorf("backend data: %w", err)
	}
	mac, err := kernel.ParseMAC(record.VtepMAC)
	if err != nil {
		return data{}, fmt.Errorf("VtepMAC: %w", err)
	}
	d := data{VNI: -1, MAC: mac}
	if record.VNI != nil {
		d.VNI = int(*record.VNI)
	}
	return d, nil
}
