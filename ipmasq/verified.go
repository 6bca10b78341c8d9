package ipmasq

import "slices"

// Verified remembers for which configuration the kernel's rules were read, so that
// they are not read again before nf_tables change. The zero Verified remembers
// nothing.
type Verified struct {
	config     *Config
	generation uint32
}

// At reports whether the rules were read for this configuration at this generation
// of nf_tables.
func (v *Verified) At(generation uint32, c Config) bool {
	return v.config != nil && v.generation == generation && v.config.Equal(c)
}

// Set remembers a configuration and a generation.
func (v *Verified) Set(generation uint32, c Config) {
	c.Exclude = slices.Clone(c.Exclude) // the caller's may change
	v.config, v.generation = &c, generation
}

// Forget makes At report false.
func (v *Verified) Forget() { v.config = nil }
