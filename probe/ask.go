package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"flannel/backend"
	"flannel/internal/loop"
)

// Answer is what probes of a peer in one family have shown.
type Answer struct {
	Name   string       `json:"name"`
	Family string       `json:"family"`
	Subnet netip.Prefix `json:"subnet"`
	Via    netip.Addr   `json:"via"`
	// Probe is absent if the probes have decided nothing.
	Probe *backend.Probed `json:"probe,omitempty"`
	// NotProbed is set if so many peers were asked for that there was no time for
	// this one: then Probe is what earlier probes have shown.
	NotProbed bool `json:"notProbed,omitempty"`
}

// Answers is what a request for probes returns.
type Answers struct {
	Peers []Answer `json:"peers"`
}

// ErrNoPeer means that no peer of that name is probed.
var ErrNoPeer = errors.New("no such peer is probed")

// Ask probes the peers of these names immediately, and returns what that has shown
// after five seconds at most. An error means that nothing was probed.
func (p *Prober) Ask(ctx context.Context, names []string) (Answers, error) {
	return p.ask(ctx, func(c *core) ([]int32, error) {
		var found []int32
		for _, name := range names {
			before := len(found)
			for i := range c.status {
				if c.status[i].Name == name && probed(&c.status[i]) {
					found = append(found, int32(i))
				}
			}
			if len(found) == before {
				return nil, fmt.Errorf("%q: %w", name, ErrNoPeer)
			}
		}
		return found, nil
	})
}

// Sample probes all peers that are suspected to be broken at once, and n others,
// as Ask does. The others come first: they are few, and mostly one probe of each is
// enough, while suspects are probed all the time.
func (p *Prober) Sample(ctx context.Context, n int) (Answers, error) {
	return p.ask(ctx, func(c *core) ([]int32, error) {
		var suspects, others []int32
		for _, i := range rand.Perm(len(c.status)) {
			_, suspect := c.suspects[int32(i)]
			switch {
			case suspect || c.peers[i].verdict.isBroken():
				suspects = append(suspects, int32(i))
			case probed(&c.status[i]) && len(others) < n:
				others = append(others, int32(i))
			}
		}
		return append(others, suspects...), nil
	})
}

// ask probes the peers that are chosen.
func (p *Prober) ask(ctx context.Context, choose func(*core) ([]int32, error)) (Answers, error) {
	changed := loop.NewSignal()
	p.mu.Lock()
	chosen, err := choose(p.core)
	if err = errors.Join(p.unable, err); err != nil {
		p.mu.Unlock()
		return Answers{}, err
	}
	began := p.now()
	status := make([]backend.PeerStatus, len(chosen))
	for k, i := range chosen {
		status[k] = p.core.status[i]
		p.core.ask(i, began)
	}
	p.waiting[changed] = struct{}{}
	p.mu.Unlock()
	p.wake.Send()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, changed)
		p.mu.Unlock()
	}()
	// Without sockets nobody ends what was asked for.
	limit := time.NewTimer(askedLimit + askedInterval)
	defer limit.Stop()
	for p.askedSince(began) {
		select {
		case <-ctx.Done():
			return Answers{}, ctx.Err()
		case <-changed:
			continue
		case <-limit.C:
		}
		break
	}
	return p.answers(status, began), nil
}

// askedSince reports whether something that was asked for until then has no
// result yet.
func (p *Prober) askedSince(began time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.core.asked {
		if p.core.peers[i].asked <= began && p.unable == nil {
			return true
		}
	}
	return false
}

// answers returns what is known of peers that somebody has asked for.
func (p *Prober) answers(status []backend.PeerStatus, began time.Duration) Answers {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := Answers{Peers: make([]Answer, len(status))}
	for k := range status {
		s, a := &status[k], &out.Peers[k]
		*a = Answer{Name: s.Name, Family: s.Family.String(), Subnet: s.Subnet, Via: s.Via, NotProbed: true}
		i, ok := p.core.findStatus(s)
		if !ok {
			continue
		}
		about := &p.core.peers[i]
		a.NotProbed = about.sent < began || about.undecided(s.Probe) && !about.searching()
		if probed := p.probedLocked(i); probed.Verdict != "" {
			a.Probe = &probed
		}
	}
	return out
}

// ServeHTTP answers requests for probes: POST with peer=NAME, which may be
// repeated, or with sample=NUMBER.
func (p *Prober) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "use POST with peer=NAME or sample=NUMBER", http.StatusMethodNotAllowed)
		return
	}
	query := req.URL.Query()
	names := query["peer"]
	sample, wrong := strconv.Atoi(query.Get("sample"))
	if (len(names) == 0) == (wrong != nil || sample < 0) {
		http.Error(w, "use POST with peer=NAME or sample=NUMBER", http.StatusBadRequest)
		return
	}
	var found Answers
	var err error
	if len(names) > 0 {
		found, err = p.Ask(req.Context(), names)
	} else {
		found, err = p.Sample(req.Context(), sample)
	}
	switch {
	case errors.Is(err, ErrNoPeer):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(found) // the client is gone when this fails
}
