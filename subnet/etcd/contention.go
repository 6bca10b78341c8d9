package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// A deleted record is restored after longestGone at the latest, since a node
// without one is cut off. A record that another daemon has written is not touched
// for letOthers: perhaps this node's address has passed to another node, and this
// node is about to notice.
const (
	longestGone = 5 * time.Second
	letOthers   = 3 * time.Second
)

// retryAt is the error of a record that is not restored yet.
type retryAt struct{ at time.Time }

// Error implements error.
func (r retryAt) Error() string { return "restored at " + r.at.Format(time.TimeOnly) }

// mayRestore returns nil if a record that is restored at this time may be
// restored already.
func mayRestore(at time.Time) error {
	if time.Now().Before(at) {
		return permanentError{retryAt{at}}
	}
	return nil
}

// noteRestored notes that our record was restored, and why that was necessary.
func (m *Manager) noteRestored(own *record, why error) {
	begins := m.contention.Restored(time.Now())
	switch {
	case begins:
		m.log.Error("this node's lease is changed again and again, slowing down", "key", own.name, "err", why)
		m.o.Conflict(why)
	case m.contention.Active():
		m.log.Debug("lease restored", "key", own.name, "err", why)
	default:
		m.log.Warn("lease restored", "key", own.name, "err", why)
	}
}

// endIfQuiet ends contention if nobody has changed our record for a while, and
// returns when to look for that; the zero time if there is no need.
func (m *Manager) endIfQuiet() time.Time {
	if !m.contention.Active() {
		return time.Time{}
	}
	if quiet := m.contention.QuietAt(); time.Now().Before(quiet) {
		return quiet
	}
	m.endContention()
	return time.Time{}
}

func (m *Manager) endContention() {
	if m.contention.Reset() {
		m.log.Info("this node's lease is no longer changed")
		m.o.Conflict(nil)
	}
}

// errDeleted is why a record was created again.
var errDeleted = errors.New("the record was deleted")

// conflict names what differs in the version of our record that another daemon
// has written.
func conflict(own subnet.Attrs, other subnet.Lease) error {
	at, there := ipfam.Join(own.PublicIP), ipfam.Join(other.Attrs.PublicIP)
	device, theirs := deviceOf(own), deviceOf(other.Attrs)
	switch {
	case other.Invalid != "":
		return fmt.Errorf("the record was overwritten with a value that cannot be decoded: %s", other.Invalid)
	case !namesNode(other.Attrs):
		return errors.New("the record was overwritten with one without public address and key")
	case device != theirs:
		return fmt.Errorf("two nodes use %s: this one has %s, the other one %s; give each its own --public-ip", at, device, theirs)
	case at != there:
		return fmt.Errorf("two nodes have %s: this one at %s, the other one at %s; "+
			"stop the daemon of one of them, delete its device and start it again", device, at, there)
	}
	return fmt.Errorf("two daemons publish %s with %s; give each node its own --public-ip", at, device)
}

// deviceOf returns the key material for people.
func deviceOf(a subnet.Attrs) string {
	keys := keysOf(a)
	key := cmp.Or(keys[ipfam.V4], keys[ipfam.V6], "no key material")
	return key[:min(len(key), maxName)]
}
