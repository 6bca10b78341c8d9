// Package health reports the daemon's state: named checks, and the pages that show
// them.
package health

import (
	"strings"
	"sync"
	"time"
)

// Grace is how long a required check may fail before a node that was ready is no
// longer ready.
const Grace = 10 * time.Second

// Registry holds the checks of one daemon, in the order in which they were
// added. Its methods may be called by several goroutines.
type Registry struct {
	onChange func()

	mu        sync.Mutex
	checks    []*Check
	loops     []*Loop
	wasReady  bool // all required checks passed at some time
	lastReady bool // the result of readyLocked at the last change
}

// Check is one named part of the daemon's health.
type Check struct {
	registry *Registry
	name     string
	required bool
	reason   string

	// guarded by registry.mu
	problem string
	since   time.Time
	timer   *time.Timer
}

// New returns a registry without checks. onChange is called after each change
// of a check's text or of readiness, by whoever caused it; it must not block
// and reads the present state from the registry. It may be nil.
func New(onChange func()) *Registry {
	if onChange == nil {
		onChange = func() {}
	}
	return &Registry{onChange: onChange}
}

// Require adds a check that decides whether the node is ready. problem is its text
// until OK or Fail is called; if it is empty, the check passes.
func (r *Registry) Require(name, problem string) *Check {
	return r.add(&Check{registry: r, name: name, required: true}, problem)
}

// Note adds a check that is shown to people and decides nothing; it passes. reason
// is one word: that of the Event about this node that is posted when the check
// fails. If it is empty, none is.
func (r *Registry) Note(name, reason string) *Check {
	return r.add(&Check{registry: r, name: name, reason: reason}, "")
}

func (r *Registry) add(c *Check, problem string) *Check {
	r.mu.Lock()
	r.checks = append(r.checks, c)
	c.setLocked(problem)
	r.mu.Unlock()
	r.onChange()
	return c
}

// OK makes the check pass.
func (c *Check) OK() { c.Fail("") }

// Set makes the check fail with an error; nil makes it pass.
func (c *Check) Set(err error) {
	if err == nil {
		c.OK()
		return
	}
	c.Fail(err.Error())
}

// Fail makes the check fail with a problem, one line for people. The text is shown
// on this host, and as an Event: it names neither peers nor secrets. The check's
// name is shown to everybody who can reach the health port. With an empty problem
// the check passes.
func (c *Check) Fail(problem string) {
	r := c.registry
	r.mu.Lock()
	changed := c.setLocked(problem)
	r.mu.Unlock()
	if changed {
		r.onChange()
	}
}

// setLocked sets a check's text and reports whether anything changed.
func (c *Check) setLocked(problem string) bool {
	problem = strings.Join(strings.Fields(problem), " ")
	was := c.problem
	c.problem = problem
	switch {
	case problem == "" && c.timer != nil:
		c.timer.Stop()
		c.timer = nil
	case problem != "" && was == "":
		c.since = time.Now()
		if c.required {
			c.timer = time.AfterFunc(Grace, c.registry.graceOver)
		}
	}
	return c.registry.noteReadyLocked() || was != problem
}

// graceOver runs when a required check has failed for Grace.
func (r *Registry) graceOver() {
	r.mu.Lock()
	changed := r.noteReadyLocked()
	r.mu.Unlock()
	if changed {
		r.onChange()
	}
}

// noteReadyLocked remembers readiness and reports whether it changed.
func (r *Registry) noteReadyLocked() bool {
	ready := r.readyLocked()
	changed := ready != r.lastReady
	r.wasReady = r.wasReady || ready
	r.lastReady = ready
	return changed
}

// Ready reports whether the node can carry pods. It becomes true once all
// required checks pass together, and false again only while one of them has failed
// for Grace.
func (r *Registry) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readyLocked()
}

func (r *Registry) readyLocked() bool {
	required := 0
	for _, c := range r.checks {
		if !c.required {
			continue
		}
		required++
		if c.problem != "" && (!r.wasReady || time.Since(c.since) >= Grace) {
			return false
		}
	}
	return required > 0
}

// Problems returns one line "name: problem" for each check that fails.
func (r *Registry) Problems() []string {
	return r.failing(func(c *Check) string { return c.name + ": " + c.problem })
}

// failing returns a line for each check that fails.
func (r *Registry) failing(line func(*Check) string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, c := range r.checks {
		if c.problem != "" {
			lines = append(lines, line(c))
		}
	}
	return lines
}

// Notice is a note that fails.
type Notice struct {
	Name    string `json:"name"`
	Problem string `json:"problem"`
	// Reason is that of an Event; it is empty if none is posted.
	Reason string `json:"-"`
}

// Notices returns the notes that fail.
func (r *Registry) Notices() []Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []Notice{}
	for _, c := range r.checks {
		if !c.required && c.problem != "" {
			list = append(list, Notice{c.name, c.problem, c.reason})
		}
	}
	return list
}
