package probe

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"flannel/backend"
)

func TestOneProbeASecond(t *testing.T) {
	for name, answers := range map[string]func(netip.Addr, int) (bool, error){
		"all answer": nil, "none answers": nothing, "only small packets arrive": upTo(100),
		"nothing can be sent": func(netip.Addr, int) (bool, error) { return false, unix.ENETUNREACH },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, peersOf(40, vxlan))
				w.setAnswers(answers)
				w.wait(10 * time.Minute)
				probes := w.take()
				for i := 1; i < len(probes); i++ {
					if gap := probes[i].at - probes[i-1].at; gap < interval {
						t.Fatalf("%v between the probes %d and %d", gap, i-1, i)
					}
				}
				if len(probes) < 500 {
					t.Errorf("%d probes in ten minutes", len(probes))
				}
			})
		})
	}
}

func TestTheFullSizeIsTriedFirstAndInEveryTenthRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		peers := peersOf(n, vxlan)
		w := newWorld(t, peers)
		w.wait(25 * n * time.Second)
		full := map[netip.Addr]int{}
		for i, s := range w.take() {
			if s.size == 1450 {
				full[s.to]++
			} else if i < n {
				t.Errorf("the first probe of %s has %d bytes", s.to, s.size)
			}
		}
		for _, p := range peers {
			if got := full[deviceOf(p)]; got != 3 {
				t.Errorf("%s got %d large probes in 25 rotations, want 3", p.Name, got)
			}
		}
		newcomer := peerAt(99, vxlan)
		w.prober.SetPeers(append(peers[:n:n], newcomer))
		w.wait(1500 * time.Millisecond)
		if got := w.verdict(newcomer); got.Verdict != backend.Fine {
			t.Errorf("a new peer is not probed first: %+v", got)
		}
	})
}

// TestABrokenPeerIsProbedEverySecond: so the other side can see it.
func TestABrokenPeerIsProbedEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(30, vxlan)
		w := newWorld(t, peers)
		w.wait(time.Minute)
		w.setAnswers(func(to netip.Addr, _ int) (bool, error) { return to != deviceOf(peers[7]), nil })
		w.wait(time.Minute) // until the rotation comes to it
		w.take()
		w.wait(time.Minute)
		others := 0
		probes := w.take()
		for _, s := range probes {
			if s.to != deviceOf(peers[7]) {
				others++
			}
		}
		if broken := len(probes) - others; broken < 40 || others < 10 {
			t.Errorf("%d probes of the broken peer and %d of others in a minute", broken, others)
		}
		w.setAnswers(nil)
		w.wait(3 * time.Second)
		if got := w.verdict(peers[7]); got.Verdict != backend.Fine {
			t.Errorf("got %+v once it answers", got)
		}
	})
}

func TestAProbeOnDemandFollowsTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onDemand := vxlan
		onDemand.OnDemand = true
		peers := peersOf(50, onDemand)
		w := newWorld(t, peers)
		w.wait(time.Hour)
		if n := len(w.take()); n > 0 {
			t.Fatalf("%d probes although nobody talks to the peers", n)
		}
		w.prober.Touch(peers[5].Subnet)
		w.wait(time.Hour)
		if n := len(w.take()); n != 3 {
			t.Errorf("%d probes after traffic, want 3", n)
		}
		if got := w.verdict(peers[5]); got.Verdict != backend.Fine {
			t.Errorf("got %+v", got)
		}
		w.setAnswers(nothing)
		w.prober.Touch(peers[5].Subnet)
		w.wait(time.Hour)
		if got, n := w.verdict(peers[5]), len(w.take()); got.Verdict != backend.Broken || n != 3 {
			t.Errorf("got %+v after %d probes", got, n)
		}
		if _, err := w.prober.Ask(t.Context(), []string{peers[6].Name}); err != nil || len(w.take()) == 0 {
			t.Errorf("no probes although somebody asks: %v", err)
		}
	})
}

// TestProbesOnDemandEnd: a probe itself has entries put that are gone.
func TestProbesOnDemandEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onDemand := vxlan
		onDemand.OnDemand = true
		peers := peersOf(400, onDemand)
		w := newWorld(t, peers)
		installed := map[netip.Addr]time.Duration{}
		w.setAnswers(func(to netip.Addr, _ int) (bool, error) {
			const unused = time.Minute
			now := time.Since(w.start)
			if last, ok := installed[to]; !ok || now > last+unused {
				go w.prober.Touch(netip.PrefixFrom(to, 24))
			}
			installed[to] = now
			return false, nil
		})
		for range 2 {
			for _, p := range peers {
				w.prober.Touch(p.Subnet)
			}
			w.wait(touchLimit)
			probes := map[netip.Prefix]int{}
			for _, s := range w.take() {
				probes[netip.PrefixFrom(s.to, 24).Masked()]++
			}
			if len(probes) < 10 || len(probes) > maxTouched {
				t.Errorf("%d peers are probed", len(probes))
			}
			for subnet, n := range probes {
				if n != enough {
					t.Errorf("%s is probed %d times", subnet, n)
				}
			}
			w.wait(time.Hour)
			if n := len(w.take()); n > 0 {
				t.Errorf("%d probes long after traffic", n)
			}
		}
		if _, err := w.prober.Ask(t.Context(), []string{peers[7].Name}); err != nil {
			t.Fatal(err)
		}
		w.take()
		w.wait(time.Hour)
		if n := len(w.take()); n > 0 {
			t.Errorf("%d more probes of a peer that somebody asked for", n)
		}
	})
}

// TestAHealthyClusterHasNoFindings lasts some hours: packets are lost now and
// then, and peers restart.
func TestAHealthyClusterHasNoFindings(t *testing.T) {
	for _, c := range []struct {
		name     string
		probe    backend.Probe
		peers    int
		answer   int           // how many of them
		downFor  time.Duration // each peer in turn
		duration time.Duration
	}{
		{"one peer", vxlan, 1, 1, 0, 4 * time.Hour},
		{"three nodes", vxlan, 2, 2, 0, 4 * time.Hour},
		{"three nodes that restart", vxlan, 2, 2, 3 * time.Minute, 4 * time.Hour},
		{"a peer that restarts", vxlan, 1, 1, 3 * time.Minute, 4 * time.Hour},
		{"50 nodes that restart", vxlan, 49, 49, 2 * time.Minute, 8 * time.Hour},
		{"5,000 peers of which 200 answer", vxlan, 5000, 200, 0, 12 * time.Hour},
		{"host-gw without pods", backend.Probe{Bridge: true, MTU: 1500}, 20, 0, 0, 4 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peers := peersOf(c.peers, c.probe)
				random := rand.New(rand.NewPCG(1, 2))
				answering := map[netip.Addr]int{}
				for i, k := range random.Perm(c.peers)[:c.answer] {
					answering[deviceOf(peers[k])] = i
				}
				w := newWorld(t, peers)
				w.setAnswers(func(to netip.Addr, _ int) (bool, error) {
					i, ok := answering[to]
					now := time.Since(w.start)
					down := c.downFor > 0 && now > 10*time.Minute && int(now/(5*time.Minute))%c.peers == i && now%(5*time.Minute) < c.downFor
					return ok && !down && random.IntN(100) > 0, nil
				})
				w.wait(c.duration)
				if len(w.reports) > 0 || w.log.Len() > 0 {
					t.Errorf("reported: %q\nlogged:\n%s", w.reports, w.log.String())
				}
				if w.verdicts["fine"] != c.answer || w.verdicts["broken"] > 0 {
					t.Errorf("verdicts: %v, want %d fine", w.verdicts, c.answer)
				}
			})
		})
	}
}

func TestAChangeOfTheWholeIsReportedOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		n       int
		answers func(peers []backend.PeerStatus) func(netip.Addr, int) (bool, error)
		// within is until when it is to be reported.
		within time.Duration
		want   string
	}{
		{"none answers", 10, func([]backend.PeerStatus) func(netip.Addr, int) (bool, error) { return nothing }, 2 * time.Minute, "no peer answers: "},
		{"the only peer does not answer", 1, func([]backend.PeerStatus) func(netip.Addr, int) (bool, error) { return nothing }, 6 * time.Minute, "no peer answers: "},
		{"large packets are lost", 10, func([]backend.PeerStatus) func(netip.Addr, int) (bool, error) { return upTo(1400) }, 3 * time.Minute,
			"some peers do not get large packets: packets of 1450 bytes are lost on the way, small ones are not; the largest that arrive have 1400 bytes: set Backend.MTU to 1450"},
		{"two of many", 10, func(peers []backend.PeerStatus) func(netip.Addr, int) (bool, error) {
			return func(to netip.Addr, _ int) (bool, error) {
				return to != deviceOf(peers[1]) && to != deviceOf(peers[4]), nil
			}
		}, 7 * time.Minute, "some peers that have answered do not answer any more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peers := peersOf(c.n, vxlan)
				w := newWorld(t, peers)
				w.wait(2 * time.Minute)
				for range 2 {
					w.reports = nil
					w.setAnswers(c.answers(peers))
					w.wait(c.within + 2*time.Minute) // large packets are tried with each tenth rotation
					if len(w.reports) != 1 || !strings.Contains(w.reports[0], c.want) {
						t.Fatalf("reported %q, want once %q", w.reports, c.want)
					}
					w.setAnswers(nil)
					w.wait(3 * time.Minute)
					if !slices.Equal(w.reports[1:], []string{""}) {
						t.Fatalf("reported %q, want the end", w.reports)
					}
				}
				if lines := strings.Count(w.log.String(), "\n"); lines != 4 {
					t.Errorf("%d lines instead of one a change:\n%s", lines, w.log.String())
				}
			})
		})
	}
}

// TestTheReportFollowsTheSize: what it tells to set must be what helps.
func TestTheReportFollowsTheSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := peersOf(6, vxlan)
		w := newWorld(t, peers)
		w.wait(time.Minute)
		narrow := func(sizes map[netip.Addr]int) {
			w.setAnswers(func(to netip.Addr, size int) (bool, error) {
				most, ok := sizes[to]
				return !ok || size <= most, nil
			})
			w.wait(10 * time.Minute)
		}
		narrow(map[netip.Addr]int{deviceOf(peers[1]): 1400})
		narrow(map[netip.Addr]int{deviceOf(peers[1]): 1400, deviceOf(peers[2]): 1300, deviceOf(peers[3]): 1350})
		narrow(nil)
		var got []string
		for _, text := range w.reports {
			_, size, _ := strings.Cut(text, "set Backend.MTU to ")
			got = append(got, size)
		}
		// Each size is reported once it is known, the smallest that a peer needs.
		if !slices.Contains(got, "1450") || !slices.Contains(got, "1350") || got[len(got)-1] != "" || len(got) > 5 {
			t.Errorf("reported %q", w.reports)
		}
		if lines := strings.Count(w.log.String(), "\n"); lines != len(got) {
			t.Errorf("%d reports, logged:\n%s", len(got), w.log.String())
		}
	})
}

func TestWithoutTheRightToProbeThatIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.mu.Lock()
		w.unable = unix.EPERM
		w.mu.Unlock()
		w.prober.SetPeers(peersOf(5, vxlan))
		w.wait(time.Hour)
		if lines := strings.Count(w.log.String(), "\n"); lines != 1 || !strings.Contains(w.log.String(), "operation not permitted") {
			t.Errorf("the log has\n%s", w.log.String())
		}
		if _, err := w.prober.Ask(t.Context(), []string{"node1"}); err == nil {
			t.Error("a request for probes succeeds")
		}
		if len(w.reports) > 0 {
			t.Errorf("reported %q", w.reports)
		}
		w.mu.Lock()
		w.unable = nil
		w.mu.Unlock()
		w.wait(2 * time.Minute)
		if got := w.verdict(peerAt(0, vxlan)); got.Verdict != backend.Fine {
			t.Errorf("got %+v with the right", got)
		}
	})
}

// TestAProberThatHangs shows in /healthz; one that waits for answers does not.
func TestAProberThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, peersOf(3, vxlan))
		w.wait(time.Hour)
		w.setAnswers(nothing)
		w.wait(time.Hour)
		if got := w.health.Hanging(); len(got) > 0 {
			t.Errorf("got %q of a prober that waits", got)
		}
		release := make(chan struct{})
		w.setAnswers(func(netip.Addr, int) (bool, error) {
			<-release
			return true, nil
		})
		w.wait(6 * time.Minute)
		if got := w.health.Hanging(); len(got) != 1 || !strings.HasPrefix(got[0], "probes: ") {
			t.Errorf("got %q, want the loop of probes", got)
		}
		close(release)
		w.wait(time.Minute)
		if got := w.health.Hanging(); len(got) > 0 {
			t.Errorf("got %q of a prober that works again", got)
		}
	})
}
