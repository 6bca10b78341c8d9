package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flannel/internal/ipfam"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
	"flannel/lab/ping"
)

// service is the address of the Service of testdata/testpods.yml.
const service = "http://10.96.7.7"

// testpods are the pods of testdata/testpods.yml, one per node.
func (c *cluster) testpods(t *testing.T) []*lab.Pod {
	t.Helper()
	var pods []kubeplane.Pod
	soon(t, func() (string, bool) {
		var err error
		if pods, err = c.k.API.Pods(t.Context(), "default", "app=testpods"); err != nil {
			return err.Error(), false
		}
		ready := 0
		for _, p := range pods {
			if p.Ready() {
				ready++
			}
		}
		return fmt.Sprint(pods), ready == len(c.Hosts) && ready == len(pods)
	})
	var found []*lab.Pod
	for _, p := range pods {
		for _, h := range c.Hosts {
			if h.Name != p.Spec.NodeName {
				continue
			}
			pod, err := h.FindPod(netip.MustParseAddr(p.Status.PodIP))
			lab.Must(t, err)
			t.Cleanup(func() { pod.Close() })
			found = append(found, pod)
		}
	}
	return found
}

// connected waits until the testpods of all nodes reach each other, and from
// each node the Service, with every testpod behind it, and the API server.
func (c *cluster) connected(t *testing.T) {
	t.Helper()
	testpods := c.testpods(t)
	for _, from := range testpods {
		for _, to := range testpods {
			for _, f := range ipfam.All() {
				if from.Addr(f).IsValid() && to.Addr(f).IsValid() {
					reaches(t, from, to.Addr(f))
				}
			}
		}
		answers := map[string]bool{}
		soon(t, func() (string, bool) {
			name, err := get(t.Context(), from, service)
			if err == nil {
				answers[name] = true
			}
			return fmt.Sprint(answers, err), len(answers) == len(testpods)
		})
		soon(t, func() (string, bool) {
			conn, err := from.Dial(t.Context(), "tcp", "10.96.0.1:443")
			if err == nil {
				conn.Close()
			}
			return fmt.Sprint("the API server's Service: ", err), err == nil
		})
	}
}

func reaches(t *testing.T, from *lab.Pod, to netip.Addr) {
	t.Helper()
	soon(t, func() (string, bool) {
		_, err := from.Ping(t.Context(), to)
		return fmt.Sprint(err), err == nil
	})
}

// get reads a page from inside a pod, over a connection of its own.
func get(ctx context.Context, from *lab.Pod, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(text)), err
}

// startPing lets the first node's testpod ping the second's without a break.
func (c *cluster) startPing(t *testing.T) *ping.Series {
	t.Helper()
	testpods := c.testpods(t)
	series, err := testpods[0].StartPing(testpods[1].Addr(ipfam.V4), 5*time.Millisecond)
	lab.Must(t, err)
	return series
}
