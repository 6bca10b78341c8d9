package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/internal/ipfam"
)

// Result is one ping of a matrix.
type Result struct {
	From, To *Pod
	Addr     netip.Addr
	Took     time.Duration
	Err      error
}

// Matrix holds a ping from every pod to every other, in every family.
type Matrix []Result

// PingAll sends one ping from every pod to every other in all families.
func (l *Lab) PingAll(ctx context.Context) Matrix {
	m := l.pairs()
	var group errgroup.Group
	group.SetLimit(32)
	for i := range m {
		group.Go(func() error {
			m[i].Took, m[i].Err = m[i].From.Ping(ctx, m[i].Addr)
			return nil
		})
	}
	_ = group.Wait() // the errors are in the matrix
	return m
}

func (l *Lab) pairs() Matrix {
	var pods []*Pod
	for _, h := range l.Hosts {
		pods = append(pods, h.Pods()...)
	}
	var m Matrix
	for _, from := range pods {
		for _, to := range pods {
			for _, f := range ipfam.All() {
				if from != to && from.Addr(f).IsValid() && to.Addr(f).IsValid() {
					m = append(m, Result{From: from, To: to, Addr: to.Addr(f)})
				}
			}
		}
	}
	return m
}

// WaitConnected pings until every pod has reached every other in one round.
func (l *Lab) WaitConnected(ctx context.Context) error {
	// Short rounds first: a round lasts as long as its slowest ping.
	for patience := 20 * time.Millisecond; ; patience = min(2*patience, time.Second) {
		round, cancel := context.WithTimeout(ctx, patience)
		err := l.PingAll(round).Err()
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("pods do not reach each other: %w", err)
		}
	}
}

// Err joins the errors of all pings.
func (m Matrix) Err() error {
	var errs []error
	for _, r := range m {
		errs = append(errs, r.Err)
	}
	return errors.Join(errs...)
}

// String returns a table with a row per sender and a column per receiver. A
// cell has the time of each family, or "lost".
func (m Matrix) String() string {
	var names []string
	cells := map[string][]string{}
	for _, r := range m {
		if len(names) == 0 || names[len(names)-1] != r.From.Name {
			names = append(names, r.From.Name)
		}
		key := r.From.Name + " " + r.To.Name
		cells[key] = append(cells[key], r.cell())
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "from \\ to\t%s\n", strings.Join(names, "\t"))
	for _, from := range names {
		fmt.Fprint(w, from)
		for _, to := range names {
			text := strings.Join(cells[from+" "+to], ", ")
			if from == to {
				text = "-"
			}
			fmt.Fprint(w, "\t", text)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return b.String()
}

func (r Result) cell() string {
	if r.Err != nil {
		return "lost"
	}
	return fmt.Sprintf("%.2f ms", float64(r.Took.Microseconds())/1000)
}
