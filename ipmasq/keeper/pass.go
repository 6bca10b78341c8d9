package keeper

import (
	"context"
	"errors"
	"slices"
	"time"

	"flannel/internal/health"
	"flannel/internal/loop"
	"flannel/ipmasq"
)

// passState is what the loop knows of earlier passes.
type passState struct {
	keeper *Keeper
	mode   Mode
	// last is what was applied without an error; nil before.
	last *ipmasq.Config
	// cleaned means that nothing of an earlier run is left elsewhere.
	cleaned bool
	// lookDue asks for a look at the rules of others.
	lookDue bool
	looked  time.Time
	blocked map[string]bool
}

func (k *Keeper) loop(ctx context.Context, mode Mode) error {
	p := &passState{keeper: k, mode: mode}
	ctx = health.WithLoop(ctx, k.Loop)
	resync := time.NewTicker(mode.Resync)
	defer resync.Stop()
	var pace loop.Loop
	var look <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.others:
			if look == nil && mode.Blocked != nil {
				look = time.After(time.Until(p.looked.Add(blockedEvery)))
			}
			continue
		case <-look:
			look, p.lookDue = nil, true
		case <-resync.C:
			k.others.Send() // not all that drops packets has events
		case <-k.changed:
		case <-pace.Again():
		}
		if err := pace.Pass(ctx, p.pass); err != nil {
			return err
		}
	}
}

// pass makes the kernel hold the rules, and then looks at those of others: what
// is missing of our rules is no drop of others.
func (p *passState) pass(ctx context.Context) error {
	p.keeper.Loop.Works()
	defer p.keeper.Loop.Waits()
	c, ok := p.keeper.config()
	if !ok {
		return nil
	}
	_, err := p.apply(ctx, c)
	if p.lookDue && ctx.Err() == nil {
		p.lookDue = false
		p.look(ctx, c)
	}
	return err
}

// apply makes the kernel hold the rules, and reports whether something was written.
func (p *passState) apply(ctx context.Context, c ipmasq.Config) (changed bool, err error) {
	changes, err := p.mode.Driver.Apply(ctx, c)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if len(changes) > 0 {
		drift, message := p.last != nil && p.last.Equal(c), "rules written"
		if drift {
			message = "rules restored that somebody had changed"
		}
		p.keeper.report(message, "changes", changes, drift)
	}
	p.keeper.failures.Fail("writing the rules", err)
	p.keeper.Checked(err)
	if err != nil {
		return false, err
	}
	p.lookDue = p.lookDue || p.last == nil && p.mode.Blocked != nil
	p.last = &c
	return len(changes) > 0, p.clean(ctx, c)
}

// clean removes what an earlier run has left elsewhere.
func (p *passState) clean(ctx context.Context, c ipmasq.Config) error {
	if p.cleaned {
		return nil
	}
	var errs []error
	for _, r := range p.mode.Former {
		changes, err := r.Remove(ctx, c)
		if len(changes) > 0 {
			p.keeper.report("rules of an earlier run removed", "from", changes, false)
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	p.keeper.failures.Fail("removing the rules of an earlier run", err)
	p.cleaned = err == nil
	return err
}

// report logs and counts what was written; drift is what somebody else had
// changed.
func (k *Keeper) report(message, key string, changes ipmasq.Changes, drift bool) {
	k.Log.Info(message, key, changes.String())
	for table, n := range changes {
		by := 0
		if drift {
			by = n.Put + n.Deleted
		}
		k.Wrote(table, n.Put, n.Deleted, by)
	}
}

// look reports what drops the overlay's packets although our rules are in place:
// each line once, and again if it comes back.
func (p *passState) look(ctx context.Context, c ipmasq.Config) {
	if !c.Forward || p.last == nil {
		return
	}
	k := p.keeper
	p.looked = time.Now()
	lines, err := p.mode.Blocked(ctx, c)
	k.failures.Fail("looking for rules that drop the overlay's packets", err)
	if err != nil {
		return
	}
	if slices.ContainsFunc(lines, func(line string) bool { return !p.blocked[line] }) {
		// Our rules may have been missing during the look, which is no drop of others.
		if changed, err := p.apply(ctx, c); changed || err != nil {
			k.others.Send()
			return
		}
	}
	k.Dropped(lines)
	now := map[string]bool{}
	for _, line := range lines {
		now[line] = true
		if !p.blocked[line] {
			k.Log.Warn("packets of pods are dropped", "why", line)
		}
	}
	if len(now) == 0 && len(p.blocked) > 0 {
		k.Log.Info("packets of pods are no longer dropped")
	}
	p.blocked = now
}
