package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flannel/internal/printable"
)

// Store is what was seen of the store of leases, with the daemon's own address and
// credentials.
type Store struct {
	// Name is etcd or the API server.
	Name string
	// Now is when it was looked at, by the clock of this host.
	Now       time.Time
	Endpoints []Endpoint
	// Credentials are certificates and the token of this node; those of the servers
	// are with the endpoints.
	Credentials []Credential
	// InternalIPs are those of this host's Node.
	InternalIPs []netip.Addr
}

// Endpoint is a server of the store.
type Endpoint struct {
	URL string
	// Proxy is what the daemon reaches it through; empty for none.
	Proxy string
	// Err is why it does not answer.
	Err error
	// Ahead is how far its clock is ahead of this host's, to the second.
	Ahead       time.Duration
	Credentials []Credential
}

// Credential is something that expires.
type Credential struct {
	What         string
	Since, Until time.Time
}

const (
	// skewed is from when on a wrong clock makes tokens and new certificates invalid.
	skewed = time.Minute
	// noticed is more than the Date of an answer is wrong by itself.
	noticed = 5 * time.Second
)

var store = Check{
	Name: "store",
	About: "The store of leases answers at the addresses that the daemon uses, through the daemon's proxy if it has one, its clock and that of this host differ by less than a minute, and neither " +
		"this node's certificate or token nor a certificate of the store has expired. The following are only notes: one of several servers does not answer; the clocks differ by more " +
		"than five seconds; less than a week, and less than a tenth of its lifetime, is left of a certificate. In a container other than the daemon's, this check is skipped.",
	Means: "This node does not learn of new peers, and they do not learn of it. Pods that can reach each other still can.",
	More:  "troubleshooting.md#etcd",
	Find: func(f *Facts) []Finding {
		s := f.Store
		if s == nil {
			return nil
		}
		return slices.Concat(f.unanswered(), s.clocks(), s.expired())
	},
}

// unanswered finds servers that do not answer. The daemon may have said so already.
func (f *Facts) unanswered() []Finding {
	var out []Finding
	s := f.Store
	for _, e := range s.Endpoints {
		if e.Err != nil {
			through, option := "", ""
			if e.Proxy != "" {
				through, option = " through the proxy "+e.Proxy, "-x "+printable.Word(e.Proxy)+" "
			}
			out = append(out, Finding{
				Problem: fmt.Sprintf("%s at %s%s does not answer: %v", s.Name, e.URL, through, e.Err),
				Command: fmt.Sprintf("curl -kv %s%s/version", option, printable.Word(e.URL)),
			})
		}
	}
	said := slices.ContainsFunc(f.Daemon.Ready, func(line string) bool { return strings.HasPrefix(line, "store: ") })
	if said || len(out) < len(s.Endpoints) {
		for i := range out {
			out[i].Note = true
		}
	}
	return out
}

func (s *Store) clocks() []Finding {
	var out []Finding
	for _, e := range s.Endpoints {
		if e.Err != nil || e.Ahead.Abs() <= noticed {
			continue
		}
		word := "behind"
		if e.Ahead < 0 {
			word = "ahead of"
		}
		out = append(out, Finding{
			Problem: fmt.Sprintf("the clock of this host is %s %s that of %s at %s", e.Ahead.Abs().Round(time.Second), word, s.Name, e.URL),
			Command: "timedatectl; chronyc tracking", Note: e.Ahead.Abs() <= skewed,
		})
	}
	return out
}

func (s *Store) expired() []Finding {
	var out []Finding
	all := slices.Clone(s.Credentials)
	for _, e := range s.Endpoints {
		all = append(all, e.Credentials...)
	}
	for _, c := range all {
		const week = 7 * 24 * time.Hour
		left := c.Until.Sub(s.Now)
		found := Finding{Command: "renew it; the daemon reads it again by itself"}
		switch {
		case s.Now.Before(c.Since.Add(-skewed)):
			found.Problem = fmt.Sprintf("%s is not valid before %s; the clock of this host says %s", c.What, stamp(c.Since), stamp(s.Now))
			found.Command = "timedatectl; chronyc tracking"
		case left <= 0:
			found.Problem = fmt.Sprintf("%s has expired on %s", c.What, stamp(c.Until))
		case left < week && left < c.Until.Sub(c.Since)/10:
			found.Problem, found.Note = fmt.Sprintf("%s expires on %s", c.What, stamp(c.Until)), true
		default:
			continue
		}
		if !slices.Contains(out, found) {
			out = append(out, found)
		}
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
