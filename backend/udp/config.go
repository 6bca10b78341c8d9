package udp

import (
	"encoding/json"
	"fmt"

	"flannel/internal/options"
)

// Config holds the backend's own keys.
type Config struct {
	// Port is the UDP port of all nodes.
	Port int
	// KnownSourcesOnly drops packets from an outer address that no lease names.
	KnownSourcesOnly bool
	// StrictSources does that too, and drops packets whose source is not in a
	// subnet of the node that they come from.
	StrictSources bool
}

// defaultPort is flannel's.
const defaultPort = 8285

// ParseConfig reads the Backend object. It also returns a line for each key
// that has no effect.
func ParseConfig(raw json.RawMessage) (Config, []string, error) {
	c := Config{Port: defaultPort}
	o, err := options.Parse(raw)
	if err != nil {
		return c, nil, fmt.Errorf("Backend: %w", err)
	}
	var backendType string
	o.String("Type", &backendType)
	o.Int("Port", &c.Port, 1, 65535)
	o.Bool("KnownSourcesOnly", &c.KnownSourcesOnly)
	o.Bool("StrictSources", &c.StrictSources)
	if err := o.Err(); err != nil {
		return c, nil, fmt.Errorf("Backend: %w", err)
	}
	return c, o.Unknown(), nil
}
