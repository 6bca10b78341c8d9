package vxlan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

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

func (d data) encode() json.RawMessage {
	return json.RawMessage(beforeVNI + strconv.Itoa(d.VNI) + beforeMAC + d.MAC.String() + afterMAC)
}

// parseData reads a record; the error is what is wrong with it.
func parseData(raw json.RawMessage) (data, error) {
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
func parseUsual(raw json.RawMessage) (data, bool) {
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(raw, " "), []byte(beforeVNI))
	if !ok {
		return data{}, false
	}
	vni, rest, ok := bytes.Cut(rest, []byte(beforeMAC))
	if !ok {
		return data{}, false
	}
	text, ok := bytes.CutSuffix(rest, []byte(afterMAC))
	if !ok {
		return data{}, false
	}
	n, err := strconv.ParseUint(string(vni), 10, 32)
	mac, ok := parseColons(text)
	return data{int(n), mac}, ok && err == nil
}

// parseColons reads aa:bb:cc:dd:ee:ff.
func parseColons(text []byte) (kernel.MAC, bool) {
	var mac kernel.MAC
	if len(text) != 3*len(mac)-1 {
		return mac, false
	}
	for i := range mac {
		high, low := hexDigit(text[3*i]), hexDigit(text[3*i+1])
		if high > 15 || low > 15 || i > 0 && text[3*i-1] != ':' {
			return mac, false
		}
		mac[i] = high<<4 | low
	}
	return mac, true
}

// hexDigit returns the value of a digit, or 255.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

func parseAny(raw json.RawMessage) (data, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return data{}, fmt.Errorf("no backend data")
	}
	var record struct {
		VNI     *uint32
		VtepMAC string
	}
	if err := json.Unmarshal(raw, &record); err != nil {
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
