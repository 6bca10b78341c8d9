// Package kube tests whole clusters whose leases are Node objects: real
// flanneld processes on hosts of the lab, and a real API server and controller
// manager. The daemons may do what the manifest lets them do.
package kube

import (
	"context"
	"flag"
	"strings"
	"sync"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/eventually"
	"flannel/lab"
	"flannel/lab/ping"
)

func TestMain(m *testing.M) {
	// Tests that run at once wait most of the time, see waits.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	lab.Main(m)
}

// waits lets a test run beside others of its kind, when all others have ended: it
// needs far more time than processors.
func waits(t *testing.T) { t.Parallel() }

// built are the programs; the daemon has the race detector.
var built = sync.OnceValues(func() (lab.Binaries, error) { return lab.BuildBinaries("-race") })

// waitLimit bounds every wait: far more than anything takes.
const waitLimit = 40 * time.Second

// annotation is how the daemon's annotations start.
const annotation = "flannel.alpha.coreos.com/"

func limited(t *testing.T) context.Context { return lab.Limited(t, waitLimit) }

// newLab returns a cluster in which no flanneld runs yet.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	binaries, err := built()
	lab.Must(t, err)
	o.Kubernetes, o.Binaries = true, binaries
	return lab.ForTest(t, o)
}

// up starts flanneld on every host, and waits until every pod reaches every
// other.
func up(t *testing.T, l *lab.Lab) {
	t.Helper()
	lab.Must(t, l.Up(limited(t)))
	connected(t, l)
}

func connected(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.WaitConnected(limited(t)); err != nil {
		t.Fatalf("%v\n%s", err, l.PingAll(t.Context()))
	}
}

// says waits until a page of the host's daemon contains a text, or does not
// when the text starts with "!".
func says(t *testing.T, h *lab.Host, page, text string) {
	t.Helper()
	text, without := strings.CutPrefix(text, "!")
	eventually.Says(t, func() (string, bool) {
		_, body, err := h.Flanneld().Get(t.Context(), page)
		if err != nil {
			body = err.Error()
		}
		return body, err == nil && strings.Contains(body, text) != without
	})
}

// doctorReports examines a host and looks for these words in the findings.
func doctorReports(t *testing.T, h *lab.Host, findings ...string) {
	t.Helper()
	out, code, err := h.Doctor(t.Context())
	lab.Must(t, err)
	for _, words := range findings {
		if !strings.Contains(out, words) {
			t.Errorf("doctor does not report %q: exit code %d\n%s", words, code, out)
		}
	}
}

func ready(t *testing.T, h *lab.Host) {
	t.Helper()
	lab.Must(t, h.WaitReady(limited(t)))
}

// annotationOf returns an annotation of a host's Node.
func annotationOf(t *testing.T, l *lab.Lab, h *lab.Host, key string) string {
	t.Helper()
	n, err := l.Kubernetes.API.GetNode(t.Context(), h.Name)
	lab.Must(t, err)
	return n.Metadata.Annotations[annotation+key]
}

func annotate(t *testing.T, l *lab.Lab, h *lab.Host, annotations map[string]any) {
	t.Helper()
	annotateNode(t, l, h.Name, annotations)
}

// annotateNode sets annotations of the daemon's on a Node.
func annotateNode(t *testing.T, l *lab.Lab, name string, annotations map[string]any) {
	t.Helper()
	full := map[string]any{}
	for key, value := range annotations {
		full[annotation+key] = value
	}
	lab.Must(t, l.Kubernetes.API.Annotate(t.Context(), name, full))
}

func awaitAnnotation(t *testing.T, l *lab.Lab, h *lab.Host, key, want string) {
	t.Helper()
	eventually.Says(t, func() (string, bool) {
		got := annotationOf(t, l, h, key)
		return got, got == want
	})
}

// startPing lets the pod of one host ping the one of another without a break.
func startPing(t *testing.T, from, to *lab.Host) *ping.Series {
	t.Helper()
	series, err := from.Pods()[0].StartPing(to.Pods()[0].Addr(ipfam.V4), 5*time.Millisecond)
	lab.Must(t, err)
	return series
}
