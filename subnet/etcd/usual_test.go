package etcd

import (
	"encoding/json"
	"testing"

	"flannel/internal/ipfam"
)

// FuzzDecodeUsual compares the short way with the general parser.
func FuzzDecodeUsual(f *testing.F) {
	const data = `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`
	usual := []string{
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":` + data + `}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":` + data + `,"BackendV6Data":` + data + `}`,
		`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1","BackendType":"host-gw"}`,
	}
	for _, value := range append(usual,
		`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendV6Data":`+data+`}`,
		"{\"PublicIP\":`192.0.2.1`,\"PublicIPv6\":null,\"BackendType\":\"vxlan\"}",
		`{"PublicIP":"fe80::1%\"","PublicIPv6":null,"BackendType":"vxlan"}`,
		`{"PublicIP":"::ffff:1.2.3.4","PublicIPv6":null,"BackendType":"vxlan"}`,
		`{"PublicIP":null,"PublicIPv6":"::","BackendType":"vxlan"}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"VXLAN"}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":""}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vx\u006can"}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendType":"udp"}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":null}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":`+data+`}}`,
		`{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":`+data+`} `,
	) {
		f.Add(value)
	}
	for _, value := range usual {
		if _, ok := decodeUsual([]byte(value)); !ok {
			f.Errorf("not usual: %s", value)
		}
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := decodeUsual([]byte(value))
		if !ok {
			return
		}
		// The blank makes it an unusual one.
		want, err := decodeValue([]byte(" " + value))
		if err != nil || got != want {
			t.Errorf("%q: got %+v, want %+v, %v", value, got, want, err)
		}
		if !json.Valid([]byte(got.Data[ipfam.V4]+" ")) && got.Data[ipfam.V4] != "" {
			t.Errorf("%q: invalid data", value)
		}
	})
}
