package doctor

import (
	"fmt"
	"io"
	"slices"
)

// Check is one thing that is looked at.
type Check struct {
	// Name is one word.
	Name string
	// About describes in one sentence what is looked at.
	About string
	// Means describes what a finding does to pods.
	Means string
	// More is the page of Documentation with more about it, and the section.
	More string
	// Find looks at the facts. It is pure.
	Find func(*Facts) []Finding
}

// Finding is something that is wrong, or with Note something that is worth knowing.
type Finding struct {
	Check string `json:"check"`
	// Problem is one line.
	Problem string `json:"problem"`
	Meaning string `json:"meaning"`
	// Command mends it; empty if no command does.
	Command string `json:"command,omitempty"`
	// Page is where the documentation explains it.
	Page string `json:"page"`
	// Note is set if it may be harmless: it is shown with -v only, and does not
	// count.
	Note bool `json:"-"`
}

// Checks are those of a host that runs flanneld, in the order in which they are
// reported.
func Checks() []Check {
	return []Check{
		subnetFile,
		daemon,
		store,
		overlay,
		publicAddress,
		peerRecords,
		cniConf,
		podBridge,
		pods,
		addresses,
		settings,
		filter,
		routes,
		mtu,
		checksums,
	}
}

// Preflight are the checks of a host on which flanneld is to be installed.
func Preflight() []Check {
	return []Check{
		configuration,
		rights,
		kernelFeatures,
		port,
		filter,
		cniConf,
		leftovers,
	}
}

// Explain writes the documentation of a check; it reports false if there
// is none of that name.
func Explain(w io.Writer, name string) bool {
	all := slices.Concat(Checks(), Preflight())
	i := slices.IndexFunc(all, func(c Check) bool { return c.Name == name })
	if i < 0 {
		return false
	}
	c := all[i]
	fmt.Fprintf(w, "%s\n\n%s\n\n%s\n\nMore, in the source code of flanneld: %s, Documentation/%s\n", c.Name, c.About, c.Means, c.Page(), c.More)
	return true
}

// Names lists the checks.
func Names() []string {
	var out []string
	for _, c := range slices.Concat(Checks(), Preflight()) {
		if !slices.Contains(out, c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

// Page returns the section of the documentation about a check.
func (c Check) Page() string { return "Documentation/doctor.md#" + c.Name }

// run returns what a check finds, completed by what is the same each time.
func (c Check) run(f *Facts) []Finding {
	found := c.Find(f)
	for i := range found {
		found[i].Check, found[i].Meaning, found[i].Page = c.Name, c.Means, c.Page()
	}
	return found
}
