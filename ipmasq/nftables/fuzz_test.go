package nftables

import (
	"testing"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func FuzzComment(f *testing.F) {
	f.Add(userdata.AppendString(nil, userdata.TypeComment, "flanneld masq 10.244.0.0/16"))
	f.Add([]byte{0, 255})
	f.Add(append([]byte{0, 255}, make([]byte, 255)...)) // the longest value
	f.Add([]byte{7, 1, 1, 0, 2, 'a', 0})
	f.Fuzz(func(_ *testing.T, data []byte) {
		comment := commentIn(data)
		for _, c := range chains {
			c.owner(comment)
		}
	})
}

func FuzzEvent(f *testing.F) {
	f.Add(uint16(unix.NFT_MSG_NEWRULE), []byte{2, 0, 0, 0, 8, 0, 1, 0, 'n', 'a', 't', 0})
	f.Add(uint16(unix.NFT_MSG_DELTABLE), []byte{2, 0, 0, 0, 200, 0, 1, 0})
	f.Fuzz(func(_ *testing.T, kind uint16, data []byte) {
		subject(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind&0xff)}, Data: data})
	})
}

func TestComment(t *testing.T) {
	for want, data := range map[string][]byte{
		"":              {0, 255, 'x'},
		"flanneld masq": userdata.AppendString(userdata.Append(nil, 9, []byte{1, 2}), userdata.TypeComment, "flanneld masq"),
	} {
		if got := commentIn(data); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
