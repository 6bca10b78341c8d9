package subnet

import (
	"encoding/json"
	"strconv"
	"strings"
)

// BackendData is what flannel's backends publish in one family, as far as it tells
// nodes and networks apart.
type BackendData struct {
	// VNI is that of vxlan, -1 if there is none.
	VNI int
	// VtepMAC is the MAC of a vxlan device, PublicKey the key of a wireguard one.
	VtepMAC, PublicKey string
}

// ParseBackendData reads the data of a record. The error is what is wrong with the
// JSON.
func ParseBackendData(text string) (BackendData, error) {
	if d, ok := ParseUsualData(text); ok {
		return d, nil
	}
	var record struct {
		VNI                *uint32
		VtepMAC, PublicKey string
	}
	if err := json.Unmarshal([]byte(text), &record); err != nil {
		return BackendData{VNI: -1}, err
	}
	d := BackendData{-1, record.VtepMAC, record.PublicKey}
	if record.VNI != nil {
		d.VNI = int(*record.VNI)
	}
	return d, nil
}

// ParseUsualData reads the text that every node with vxlan writes, without a
// general parser: that is done for each of thousands of peers.
func ParseUsualData(text string) (d BackendData, ok bool) {
	rest, found := strings.CutPrefix(text, `{"VNI":`)
	vni, rest, split := strings.Cut(rest, `,"VtepMAC":"`)
	mac, ended := strings.CutSuffix(rest, `"}`)
	n, err := strconv.ParseUint(vni, 10, 32)
	if !found || !split || !ended || err != nil || vni[0] == '0' || len(mac) != len("00:00:00:00:00:00") {
		return BackendData{}, false
	}
	for i := range len(mac) {
		if c := mac[i]; c != ':' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return BackendData{}, false
		}
	}
	return BackendData{VNI: int(n), VtepMAC: mac}, true
}
