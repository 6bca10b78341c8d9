package cniplugin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
	defaultResultsDir = "/var/lib/cni/results"

	ownType       = "flannel"
	defaultType   = "bridge"
	defaultIPAM   = "host-local"
	keyAttached   = "cni.dev/valid-attachments"
	keyAttachedV0 = "cni.dev/attachments"
)

// object is a JSON object whose values stay as they were written.
type object map[string]json.RawMessage

// config is the network configuration that the runtime gives to the plugin.
type config struct {
	Name          string          `json:"name"`
	CNIVersion    string          `json:"cniVersion"`
	SubnetFile    string          `json:"subnetFile"`
	DataDir       string          `json:"dataDir"`
	ResultsDir    string          `json:"resultsDir"`
	Delegate      object          `json:"delegate"`
	IPAM          object          `json:"ipam"`
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	PrevResult    json.RawMessage `json:"prevResult"`
	// Attached and AttachedV0 are one list under two names: early runtimes
	// took the second one.
	Attached   json.RawMessage `json:"cni.dev/valid-attachments"`
	AttachedV0 json.RawMessage `json:"cni.dev/attachments"`

	// delegateType and ipamType are the plugins that are called, routes those that
	// the configuration itself asks for.
	delegateType, ipamType string
	routes                 []json.RawMessage
}

// parseConfig reads a configuration, fills in the defaults and checks what the
// plugin itself looks at.
func parseConfig(text []byte) (config, error) {
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return config{}, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("read the network configuration: %v", err), "")
	}
	c.SubnetFile = cmp.Or(c.SubnetFile, defaultSubnetFile)
	c.DataDir = cmp.Or(c.DataDir, defaultDataDir)
	c.ResultsDir = cmp.Or(c.ResultsDir, defaultResultsDir)
	if err := c.parse(); err != nil {
		return config{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %s: %v", c.Name, err), "")
	}
	return c, nil
}

// parse reads the parts that the plugin looks at. Its error has the remedy.
func (c *config) parse() (err error) {
	for _, key := range []string{"name", "ipam"} {
		if _, found := c.Delegate[key]; found {
			return fmt.Errorf("delegate.%s is not allowed: flannel sets it; put it beside delegate", key)
		}
	}
	c.delegateType, err = c.Delegate.text("type", defaultType)
	switch {
	case err != nil || c.delegateType == "":
		return errors.New("delegate.type is not allowed: use the name of a plugin such as " + defaultType)
	case c.delegateType == ownType:
		return errors.New("delegate.type is not allowed: flannel cannot call itself; use the name of a plugin such as " + defaultType)
	}
	if c.ipamType, err = c.IPAM.text("type", defaultIPAM); err != nil || c.ipamType == "" {
		return errors.New("ipam.type is not allowed: use the name of a plugin such as " + defaultIPAM)
	}
	var routes []types.Route
	if raw, found := c.IPAM["routes"]; found && errors.Join(json.Unmarshal(raw, &c.routes), json.Unmarshal(raw, &routes)) != nil {
		return errors.New("ipam.routes is not allowed: use a list such as [{\"dst\": \"192.0.2.0/24\"}]")
	}
	return nil
}

// attachments returns the list of what is still in use. found is false without a
// list, which is not the same as an empty one.
func (c config) attachments() (list []types.GCAttachment, found bool, err error) {
	raw := c.Attached
	if raw == nil {
		raw = c.AttachedV0
	}
	if raw == nil {
		return nil, false, nil
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, false, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("read %s: %v", keyAttached, err), "")
	}
	return list, true, nil
}

// text returns a value that, if present, must be text.
func (o object) text(key, absent string) (string, error) {
	raw, found := o[key]
	if !found {
		return absent, nil
	}
	var value *string
	if err := json.Unmarshal(raw, &value); err != nil || value == nil {
		return "", fmt.Errorf("%s is not a text", key)
	}
	return *value, nil
}

// isSet reports whether a value is there and not null.
func isSet(raw json.RawMessage) bool { return raw != nil && string(raw) != "null" }
