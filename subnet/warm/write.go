package warm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"flannel/internal/logonce"
	"flannel/subnet"
)

const (
	// peersDelay is for how long changes of other nodes are collected, once more
	// for each peersSpan of them: this spares the disk in a large cluster.
	peersDelay = 30 * time.Second
	peersSpan  = 500
	// contactEvery is how often the time of the last contact is noted.
	contactEvery = 10 * time.Minute
	// recordSize is about that of a lease as it is written.
	recordSize = 256
)

// Run saves what the next run is to know, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	failures := logonce.NewFailures(m.o.Log, slog.LevelWarn)
	save := func(what string, write func() error) { failures.Fail("writing the state of "+what, write()) }
	contact := time.NewTicker(contactEvery)
	defer contact.Stop()
	var due <-chan time.Time
	written := "" // the identity that the leases of the other nodes were written with
	for {
		select {
		case <-m.ownChanged:
			save("this node", m.saveOwn)
		case <-contact.C:
			save("this node", m.saveOwn)
			if m.Identity() != written {
				m.peersChanged.Send()
			}
		case <-m.peersChanged:
			if due == nil {
				due = time.After(peersDelay * time.Duration(1+m.peers()/peersSpan))
			}
		case <-due:
			due, written = nil, m.Identity()
			save("the other nodes", m.savePeers)
		case <-ctx.Done():
			if due != nil {
				save("the other nodes", m.savePeers)
			}
			save("this node", m.saveOwn)
			return ctx.Err()
		}
	}
}

// noteOwn takes in this node's lease as the store has it.
func (m *Manager) noteOwn(l subnet.Lease) {
	m.update(func() {
		m.settled = true
		m.now.Own, m.now.Asked = l, l.Attrs
		if m.wanted != nil {
			m.now.Asked = *m.wanted
		}
	})
	m.ownChanged.Send()
}

func (m *Manager) peers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.leases)
}

func (m *Manager) notePeers(leases []*subnet.Lease) {
	m.update(func() { m.leases = leases })
	m.peersChanged.Send()
}

// saveOwn does nothing while the store cannot be reached: nothing is new then.
func (m *Manager) saveOwn() error {
	m.mu.Lock()
	now := m.now
	m.mu.Unlock()
	if now.Own.Name == "" || m.o.Away() {
		return nil
	}
	now.Contact, now.Identity, now.Addrs = time.Now().Round(0).UTC(), m.Identity(), m.Store.StoreAddrs()
	return m.o.Dir.Save(ownDocument, now)
}

// savePeers encodes one lease after the other: together they are large.
func (m *Manager) savePeers() error {
	m.mu.Lock()
	leases := m.leases
	m.mu.Unlock()
	identity, err := json.Marshal(m.Identity())
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Grow(recordSize * len(leases))
	b.WriteString(`{"identity":` + string(identity) + `,"leases":[`)
	enc := json.NewEncoder(&b)
	first := true
	for _, l := range leases {
		if l.Invalid != "" {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	b.WriteString("]}\n")
	return m.o.Dir.Write(peersDocument, b.Bytes())
}

// loadPeers returns all leases that were known with the state, this node's
// included.
func (m *Manager) loadPeers(s *state) []*subnet.Lease {
	var known struct {
		Identity string
		Leases   []*subnet.Lease
	}
	err := m.o.Dir.Load(peersDocument, &known)
	if err == nil && known.Identity != s.Identity {
		err = errors.New("the saved ones belong to another store")
	}
	if err != nil {
		m.o.Log.Warn("no leases of other nodes are known", "err", err)
		known.Leases = nil
	}
	leases := slices.DeleteFunc(known.Leases, func(l *subnet.Lease) bool { return l == nil || l.Subnet == s.Own.Subnet })
	leases = append(leases, &s.Own)
	slices.SortFunc(leases, func(a, b *subnet.Lease) int { return strings.Compare(a.Name, b.Name) })
	return leases
}
