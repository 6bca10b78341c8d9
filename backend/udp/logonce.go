package udp

import "net/netip"

// maxLogged bounds what is remembered of addresses that anybody can invent.
const maxLogged = 256

// logUnknownSource logs once for each address that no lease names it.
func (f *forwarder) logUnknownSource(a netip.Addr, dropped bool) {
	if f.unknownSources.First(a) {
		f.log.Info("packets from an address that no lease names", "src", a, "dropped", dropped)
	}
}

// logSendError logs once for each address why the kernel does not send to it.
func (f *forwarder) logSendError(a netip.Addr, err error) {
	if f.sendErrors.First(a) {
		f.log.Warn("packets not sent", "dst", a, "err", err)
	}
}
