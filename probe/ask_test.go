package probe

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flannel/backend"
	"flannel/internal/ipfam"
)

func TestAPeerThatSomebodyAsksForIsProbedAtOnce(t *testing.T) {
	all := func(backend.PeerStatus) func(netip.Addr, int) (bool, error) { return nil }
	for _, c := range []struct {
		name    string
		first   func(netip.Addr, int) (bool, error)
		now     func(backend.PeerStatus) func(netip.Addr, int) (bool, error)
		want    backend.Verdict
		largest int
	}{
		{"it answers", nil, all, backend.Fine, 0},
		{"it did not answer", nothing, all, backend.Fine, 0},
		{"it does not answer", nil, func(p backend.PeerStatus) func(netip.Addr, int) (bool, error) {
			return func(to netip.Addr, _ int) (bool, error) { return to != deviceOf(p), nil }
		}, backend.Broken, 0},
		{"it has never answered", nothing, func(p backend.PeerStatus) func(netip.Addr, int) (bool, error) {
			return func(to netip.Addr, _ int) (bool, error) { return to != deviceOf(p) && to != bridgeOf(p), nil }
		}, backend.Silent, 0},
		{"large packets are lost", nil, func(backend.PeerStatus) func(netip.Addr, int) (bool, error) { return upTo(1391) }, backend.Broken, 1391},
		{"hardly any packet is small enough", nil, func(backend.PeerStatus) func(netip.Addr, int) (bool, error) { return upTo(small + 1) }, backend.Broken, small + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peers := peersOf(3000, vxlan)
				w := newWorld(t, peers)
				w.setAnswers(c.first)
				w.wait(10 * time.Second)
				w.setAnswers(c.now(peers[2]))
				w.take()
				began := time.Now()
				got, err := w.prober.Ask(t.Context(), []string{peers[2].Name})
				if err != nil || len(got.Peers) != 1 || got.Peers[0].Name != peers[2].Name {
					t.Fatal(got, err)
				}
				if took := time.Since(began); took > askedLimit {
					t.Errorf("it takes %v", took)
				}
				probe := got.Peers[0].Probe
				if c.want == backend.Silent { // until another one answers
					w.wait(10 * time.Second)
					verdict := w.verdict(peers[2])
					probe = &verdict
				}
				if probe == nil || probe.Verdict != c.want || probe.Largest != c.largest {
					t.Errorf("got %+v, want %s and %d", probe, c.want, c.largest)
				}
			})
		})
	}
}

func TestASampleIsProbedAtTwentyASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(5000, vxlan)
		w := newWorld(t, peers)
		w.wait(time.Minute)
		w.setAnswers(func(to netip.Addr, _ int) (bool, error) { return to != deviceOf(peers[3]), nil })
		w.prober.Touch(peers[3].Subnet)
		w.wait(time.Minute)
		w.take()
		began := time.Now()
		got, err := w.prober.Sample(t.Context(), 20)
		if err != nil || len(got.Peers) != 21 {
			t.Fatal(len(got.Peers), err)
		}
		for _, a := range got.Peers {
			want := backend.Fine
			if a.Name == peers[3].Name {
				want = backend.Broken
			}
			if a.Probe == nil || a.Probe.Verdict != want {
				t.Errorf("%s: got %+v, want %s", a.Name, a.Probe, want)
			}
		}
		if took := time.Since(began); took > askedLimit {
			t.Errorf("it takes %v", took)
		}
		probes := w.take()
		for i := range probes {
			in := 0
			for _, s := range probes[i:] {
				if s.at < probes[i].at+time.Second {
					in++
				}
			}
			if in > 21 { // one of them nobody has asked for
				t.Fatalf("%d probes in a second", in)
			}
		}
	})
}

// TestAskingDoesNotEndAnOutage: the whole changes only by answers and losses.
func TestAskingDoesNotEndAnOutage(t *testing.T) {
	for name, answers := range map[string]func(peers []backend.PeerStatus) func(netip.Addr, int) (bool, error){
		"none answers":           func([]backend.PeerStatus) func(netip.Addr, int) (bool, error) { return nothing },
		"large packets are lost": func([]backend.PeerStatus) func(netip.Addr, int) (bool, error) { return upTo(1400) },
		"one does not answer": func(peers []backend.PeerStatus) func(netip.Addr, int) (bool, error) {
			return func(to netip.Addr, _ int) (bool, error) { return to != deviceOf(peers[1]), nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peers := peersOf(4, vxlan)
				w := newWorld(t, peers)
				w.wait(time.Minute)
				w.setAnswers(answers(peers))
				w.wait(8 * time.Minute)
				if len(w.reports) != 1 {
					t.Fatalf("reported: %q", w.reports)
				}
				for range 3 {
					if _, err := w.prober.Sample(t.Context(), 20); err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					if _, err := w.prober.Ask(ctx, []string{peers[1].Name}); err == nil {
						t.Error("the answer comes before anything can be known")
					}
					cancel()
					if got := w.verdict(peers[1]); got.Verdict != backend.Broken {
						t.Errorf("got %+v of a peer that is asked for", got)
					}
					w.wait(10 * time.Second)
				}
				if len(w.reports) != 1 || strings.Count(w.log.String(), "\n") != 1 {
					t.Errorf("reported: %q\nlogged:\n%s", w.reports, w.log.String())
				}
			})
		})
	}
}

// TestEachSuspectThatIsProbedGetsAVerdict: more are suspected than can be probed.
func TestEachSuspectThatIsProbedGetsAVerdict(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers func(netip.Addr, int) (bool, error)
		want    backend.Verdict
		// atLeast are to have one.
		atLeast int
	}{
		{"still broken", nothing, backend.Broken, 10},
		{"mended", nil, backend.Fine, 60},
		{"only small packets arrive", upTo(1400), backend.Broken, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 150
				peers := peersOf(n+20, vxlan)
				w := newWorld(t, peers)
				w.wait(10 * time.Minute)
				const dead = 100
				isDead := map[netip.Addr]bool{}
				for _, p := range peers[:dead] {
					isDead[deviceOf(p)] = true
				}
				w.setAnswers(func(to netip.Addr, _ int) (bool, error) { return !isDead[to], nil })
				w.wait(time.Hour)
				w.setAnswers(func(to netip.Addr, size int) (bool, error) {
					if !isDead[to] || c.answers == nil {
						return true, nil
					}
					return c.answers(to, size)
				})
				began := time.Now()
				got, err := w.prober.Sample(t.Context(), 20)
				if err != nil || len(got.Peers) != dead+20 {
					t.Fatal(len(got.Peers), err)
				}
				if took := time.Since(began); took > askedLimit+askedInterval {
					t.Errorf("it takes %v", took)
				}
				decided := 0
				for _, a := range got.Peers {
					switch {
					case !isDead[deviceOf(backend.PeerStatus{Subnet: a.Subnet})]:
						if a.NotProbed || a.Probe.Verdict != backend.Fine {
							t.Errorf("%s of the sample: %+v", a.Name, a)
						}
					case a.NotProbed:
						if a.Probe.Verdict != backend.Broken {
							t.Errorf("%s, which is not probed: %+v", a.Name, a.Probe)
						}
					default:
						decided++
						if a.Probe.Verdict != c.want || a.Probe.At.Before(began) {
							t.Errorf("%s: got %+v, want %s", a.Name, a.Probe, c.want)
						}
					}
				}
				if decided < c.atLeast {
					t.Errorf("%d of %d suspects have a verdict", decided, dead)
				}
				t.Logf("%d of %d suspects have a verdict", decided, dead)
			})
		})
	}
}

// TestTheLargestSizeOfBothFamilies: the way of one is not that of the other.
func TestTheLargestSizeOfBothFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(2, vxlan)
		peers[1].Name, peers[1].Family = peers[0].Name, ipfam.V6
		peers[1].Subnet, peers[1].Via = netip.MustParsePrefix("fd00:5::/64"), netip.MustParseAddr("2001:db8::1")
		w := newWorld(t, peers)
		w.wait(time.Minute)
		w.setAnswers(func(to netip.Addr, size int) (bool, error) {
			return size <= 1350 && to.Is4() || size <= 1330, nil
		})
		got, err := w.prober.Ask(t.Context(), []string{peers[0].Name})
		if err != nil || len(got.Peers) != 2 {
			t.Fatal(got, err)
		}
		for i, want := range []int{1350, 1330} {
			if a := got.Peers[i]; a.NotProbed || a.Probe.Largest != want {
				t.Errorf("got %+v of %s, want %d", a.Probe, a.Family, want)
			}
		}
	})
}

func TestRequestsForProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, peersOf(3, vxlan))
		w.wait(time.Second)
		for target, want := range map[string]int{
			"/probe?peer=node1":            http.StatusOK,
			"/probe?peer=node1&peer=node2": http.StatusOK,
			"/probe?sample=20":             http.StatusOK,
			"/probe?sample=0":              http.StatusOK,
			"/probe?peer=node9":            http.StatusNotFound,
			"/probe":                       http.StatusBadRequest,
			"/probe?sample=all":            http.StatusBadRequest,
			"/probe?peer=node1&sample=1":   http.StatusBadRequest,
		} {
			answer := httptest.NewRecorder()
			w.prober.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, nil))
			if answer.Code != want {
				t.Errorf("%s: got %d, want %d: %s", target, answer.Code, want, answer.Body)
			}
		}
		answer := httptest.NewRecorder()
		w.prober.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/probe?peer=node1", nil))
		if answer.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET: got %d", answer.Code)
		}
		if _, err := w.prober.Ask(t.Context(), []string{"node1", "node7"}); !errors.Is(err, ErrNoPeer) {
			t.Errorf("got %v for a name that no peer has", err)
		}
	})
}

// TestASlowAnswerIsNoLoss has a peer whose answers take longer than they used to: a
// path has changed, or the peer's host is busy for a moment.
func TestASlowAnswerIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(3, vxlan)
		w := newWorld(t, peers)
		w.wait(10 * time.Second)
		w.take()
		began := time.Now()
		w.setAnswers(func(to netip.Addr, _ int) (bool, error) {
			return to != deviceOf(peers[2]) || time.Since(began) > 2*time.Second, nil
		})
		got, err := w.prober.Ask(t.Context(), []string{peers[2].Name})
		if err != nil || len(got.Peers) != 1 || got.Peers[0].Probe == nil || got.Peers[0].Probe.Verdict != backend.Fine {
			t.Errorf("got %+v, %v", got.Peers, err)
		}
		if took := time.Since(began); took > askedLimit {
			t.Errorf("it takes %v", took)
		}
	})
}
