package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
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
}

// Answers is what a request for probes returns.
type Answers struct {
	Peers []Answer `json:"peers"`
}

// maxAsked is how many peers can be asked within the limit.
const maxAsked = int(askedLimit / askedInterval)

// ErrNoPeer means that no peer of that name is probed.
var ErrNoPeer = errors.New("no such peer is probed")

// Ask probes the peers of these names at once, and returns what that has shown
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
// as Ask does.
func (p *Prober) Sample(ctx context.Context, n int) (Answers, error) {
	return p.ask(ctx, func(c *core) ([]int32, error) {
		var found []int32
		for i := range c.status {
			if _, suspect := c.suspects[int32(i)]; suspect || c.peers[i].verdict == broken {
				found = append(found, int32(i))
			}
		}
		for _, i := range rand.Perm(len(c.status)) {
			if n <= 0 {
				break
			}
			if probed(&c.status[i]) && !slices.Contains(found, int32(i)) {
				found = append(found, int32(i))
				n--
			}
		}
		return found, nil
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
	chosen = chosen[:min(len(chosen), maxAsked)]
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
	return answers(status, p.Probed(status)), nil
}

// askedSince reports whether something that was asked for until then has no
// result yet.
func (p *Prober) askedSince(began time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.core.asked {
		if p.core.peers[i].asked <= began && p.unable == nil {
			return true
		}
	}
	return false
}

func answers(status []backend.PeerStatus, probed []backend.Probed) Answers {
	out := Answers{Peers: make([]Answer, len(status))}
	for k, s := range status {
		out.Peers[k] = Answer{Name: s.Name, Family: s.Family.String(), Subnet: s.Subnet, Via: s.Via}
		if probed[k].Verdict != "" {
			out.Peers[k].Probe = &probed[k]
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
