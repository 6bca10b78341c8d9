package lab

import (
	"context"
	_ "embed"
	"strings"
)

//go:embed dns.yml
var dnsObjects string

// applyDNS asks for a CoreDNS at the address that pods know. It comes with the
// network.
func (k *Kubernetes) applyDNS(ctx context.Context) error {
	return k.Apply(ctx, strings.NewReplacer("ADDRESS", k.Plane.DNS().String(), "IMAGE", DNSImage).Replace(dnsObjects))
}
