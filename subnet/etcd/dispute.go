package etcd

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"flannel/internal/ipfam"
	"flannel/subnet"
)

// Who finds the own record changed puts it right at once, a few times. When
// that goes on, somebody else does the same: a dispute. Then the answers come
// after firstAnswer, growing to lastAnswer. A deleted record comes back sooner,
// since a node without one is cut off. A record that another daemon has written
// is left alone for letOthers first: perhaps this node's address has gone to
// another one, and this node is about to notice.
const (
	answersAtOnce = 3
	firstAnswer   = time.Second
	lastAnswer    = time.Minute
	letOthers     = 3 * time.Second
	longestGone   = 5 * time.Second
)

// dispute counts how often the own record had to be put right. It takes the
// time as an argument and does nothing by itself.
type dispute struct {
	first, last time.Duration
	others      time.Duration
	answers     int
	delay       time.Duration
	answered    time.Time
	// noticed is when a record of another daemon was seen first since then.
	noticed time.Time
	// hurried says that the next answer does not wait.
	hurried bool
}

// answer notes that the record was put right. It reports whether that makes it
// a dispute.
func (d *dispute) answer(now time.Time) (opened bool) {
	if !now.Before(d.quietAt()) {
		d.end()
	}
	d.answers++
	d.answered, d.noticed, d.hurried = now, time.Time{}, false
	if d.answers >= answersAtOnce {
		d.delay = min(max(d.first, 2*d.delay), d.last)
	}
	return d.answers == answersAtOnce
}

// next is when the record, changed or gone, may be put right.
func (d *dispute) next(gone bool) time.Time {
	switch {
	case d.hurried:
		return time.Time{}
	case gone:
		return d.answered.Add(min(d.delay, longestGone))
	case !d.noticed.IsZero() && d.noticed.Add(d.others).After(d.answered.Add(d.delay)):
		return d.noticed.Add(d.others)
	}
	return d.answered.Add(d.delay)
}

// notice notes that another daemon has written the record.
func (d *dispute) notice(now time.Time) {
	if d.noticed.IsZero() {
		d.noticed = now
	}
}

// hurry lets the next answer through.
func (d *dispute) hurry() { d.hurried = true }

// open reports whether there is a dispute.
func (d *dispute) open() bool { return d.answers >= answersAtOnce }

// quietAt is when the record has been left alone for long enough.
func (d *dispute) quietAt() time.Time { return d.answered.Add(max(10*d.first, 3*d.delay)) }

// end forgets everything. It reports whether there was a dispute.
func (d *dispute) end() bool {
	open := d.open()
	*d = dispute{first: d.first, last: d.last, others: d.others}
	return open
}

// later says that the own record is not put right yet.
type later struct{ until time.Time }

// Error implements error.
func (l later) Error() string { return "put right at " + l.until.Format(time.TimeOnly) }

// mayAnswer returns nil when the own record, changed or gone, may be put right,
// else the time.
func (m *Manager) mayAnswer(gone bool) error {
	if next := m.dispute.next(gone); time.Now().Before(next) {
		return final{later{next}}
	}
	return nil
}

// answered notes that the own record was put right, and why that was necessary.
func (m *Manager) answered(own held, why error) {
	opened := m.dispute.answer(time.Now())
	switch {
	case opened:
		m.log.Error("this node's lease is changed again and again, slowing down", "key", own.name(), "err", why)
		m.tellConflict(why)
	case m.dispute.open():
		m.log.Debug("own lease published again", "key", own.name(), "err", why)
	default:
		m.log.Warn("own lease published again", "key", own.name(), "err", why)
	}
}

// leftAlone ends a dispute when nobody has changed the own record for a while,
// and returns when to look for that; the zero time when there is no need.
func (m *Manager) leftAlone() time.Time {
	if !m.dispute.open() {
		return time.Time{}
	}
	if quiet := m.dispute.quietAt(); time.Now().Before(quiet) {
		return quiet
	}
	m.endDispute()
	return time.Time{}
}

func (m *Manager) endDispute() {
	if m.dispute.end() {
		m.log.Info("this node's lease is left alone again")
		m.tellConflict(nil)
	}
}

func (m *Manager) tellConflict(err error) {
	if m.o.Conflict != nil {
		m.o.Conflict(err)
	}
}

// errDeleted is why a record was created again.
var errDeleted = errors.New("somebody deleted it")

// disagreement names what differs in somebody else's version of this node's
// record.
func disagreement(own subnet.Attrs, other subnet.Lease) error {
	at, there := addresses(own), addresses(other.Attrs)
	device, theirs := deviceOf(own), deviceOf(other.Attrs)
	switch {
	case other.Invalid != "":
		return fmt.Errorf("somebody wrote what cannot be decoded: %s", other.Invalid)
	case !namesNode(other.Attrs):
		return errors.New("somebody wrote a record without public address and key")
	case device != theirs:
		return fmt.Errorf("two nodes use %s: this one has %s, the other one %s; give each its own --public-ip", at, device, theirs)
	case at != there:
		return fmt.Errorf("two nodes have %s: this one at %s, the other one at %s; "+
			"stop the daemon of one of them, delete its device and start it again", device, at, there)
	}
	return fmt.Errorf("two daemons publish %s with %s; give each node its own --public-ip", at, device)
}

// addresses names the public addresses for people.
func addresses(a subnet.Attrs) string {
	var parts []string
	for _, addr := range ipfam.Addrs(a.PublicIP) {
		parts = append(parts, addr.String())
	}
	return strings.Join(parts, ",")
}

// deviceOf names the key material for people.
func deviceOf(a subnet.Attrs) string {
	for _, data := range a.Data.Each() {
		if id := identity(data); id != "" {
			return id[:min(len(id), maxName)]
		}
	}
	return "no key material"
}
