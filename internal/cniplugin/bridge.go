package cniplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"flannel/kernel/podbridge"
	"flannel/subnet/env"
)

const (
	defaultBridge = "cni0"
	// maxNamed bounds the containers that an error names.
	maxNamed = 5
)

// gateway returns the name of the bridge that gets the subnet's first address
// from the delegate, if there is one.
func (c config) gateway() (name string, found bool) {
	noGateway := string(c.Delegate["isGateway"]) == "false" && string(c.Delegate["isDefaultGateway"]) != "true"
	if c.delegateType != defaultType || c.ipamType != defaultIPAM || noGateway {
		return "", false
	}
	name, err := c.Delegate.text("bridge", defaultBridge)
	return name, err == nil && name != ""
}

// readdress prepares the bridge for a subnet that is not the one it was made
// for. What it returns explains an error of the delegate; it is none in
// itself, because the delegate may be told to cope.
func (p Plugin) readdress(c config, e env.Env) (hint string) {
	name, found := c.gateway()
	if !found {
		return ""
	}
	former, err := podbridge.Readdress(name, e.Network, e.Subnet)
	if err != nil {
		p.warn("give %s the address of this node's subnet: %v", name, oneLine(err))
		return ""
	}
	if len(former) == 0 {
		return ""
	}
	return fmt.Sprintf("%s has %s of a former subnet and is in use%s: delete these pods, or drain the node; the next pod then gets this node's subnet",
		name, join(former), c.holders(former))
}

// holders names the containers with addresses in the former subnets.
func (c config) holders(former []netip.Prefix) string {
	r, found := c.reservations()
	if !found {
		return ""
	}
	list := r.within(former)
	switch {
	case len(list) == 0:
		return ""
	case len(list) > maxNamed:
		list = append(list[:maxNamed:maxNamed], fmt.Sprintf("%d more", len(list)-maxNamed))
	}
	return " (" + strings.Join(list, ", ") + ")"
}

func join(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}

// explain adds a hint to a delegate's error.
func explain(err error, hint string) error {
	var e *types.Error
	if hint == "" || !errors.As(err, &e) {
		return err
	}
	return types.NewError(e.Code, e.Msg+"; "+hint, e.Details)
}
