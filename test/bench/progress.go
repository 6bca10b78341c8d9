package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells whoever waits how far a run is: on a terminal in one line that
// it rewrites, elsewhere in a line per measure.
type progress struct {
	w        io.Writer
	terminal bool
	measures int
	lasts    time.Duration
	start    time.Time

	mu      sync.Mutex
	number  int
	measure string
	current string
}

// newProgress also writes the first line, which has how long the run takes.
func newProgress(w io.Writer, measures []measure) *progress {
	p := &progress{w: w, measures: len(measures), start: time.Now()}
	for _, m := range measures {
		p.lasts += m.lasts
	}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	fmt.Fprintf(w, "bench: %d measures, about %s on a quiet machine\n", p.measures, p.lasts)
	return p
}

// next begins a measure.
func (p *progress) next(name string) {
	p.mu.Lock()
	p.number, p.measure, p.current = p.number+1, name, name
	p.mu.Unlock()
	p.write(time.Since(p.start))
}

// step names what a long measure does next.
func (p *progress) step(what string) {
	p.mu.Lock()
	p.current = p.measure + ", " + what
	p.mu.Unlock()
	p.write(time.Since(p.start))
}

// write writes the line; past is the time since the start.
func (p *progress) write(past time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, after := "", "\n"
	if p.terminal {
		before, after = "\r\033[K", ""
	}
	fmt.Fprintf(p.w, "%s[%d/%d] %s: %s of about %s%s", before, p.number, p.measures, p.current, past.Round(time.Second), p.lasts, after)
}

// show rewrites the line each second on a terminal, until stop.
func (p *progress) show() (stop func()) {
	if !p.terminal {
		return func() {}
	}
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.write(time.Since(p.start))
			case <-done:
				fmt.Fprintln(p.w)
				return
			}
		}
	})
	return func() {
		close(done)
		writer.Wait()
	}
}
