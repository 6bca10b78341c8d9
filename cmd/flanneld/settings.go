package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"flannel/internal/health"
	"flannel/internal/loop"
	"flannel/internal/sysctl"
	"flannel/network"
)

// settingsEvery is how often the settings of this host are read: the kernel
// reports no change.
const settingsEvery = 10 * time.Second

// settings reports settings of this host that keep pods from talking, for as
// long as they do. It changes none.
type settings struct {
	log   *slog.Logger
	check *health.Check
	loop  *health.Loop
	root  string
	// env has what the settings are about once it is known.
	env chan network.FilterEnv
	// wrong are those that were wrong at the last look.
	wrong map[sysctl.Problem]bool
}

func newSettings(log *slog.Logger, r *health.Registry) *settings {
	return &settings{
		log: log, check: r.Note("settings", "HostSettings"), loop: r.AddLoop("settings"),
		root: sysctl.Root, env: make(chan network.FilterEnv, 1),
	}
}

// start lets run begin. It is called once.
func (s *settings) start(env network.FilterEnv) { s.env <- env }

// run blocks until ctx ends.
func (s *settings) run(ctx context.Context) error {
	var env network.FilterEnv
	select {
	case <-ctx.Done():
		return ctx.Err()
	case env = <-s.env:
	}
	for {
		s.loop.Works()
		s.report(sysctl.Check(s.root, env.Config.Enabled(), env.Uplink()))
		s.loop.Waits()
		if err := loop.Wait(ctx, settingsEvery); err != nil {
			return err
		}
	}
}

// report logs each problem when it begins, and the end of the last.
func (s *settings) report(problems []sysctl.Problem) {
	wrong := map[sysctl.Problem]bool{}
	var texts []string
	for _, p := range problems {
		wrong[p] = true
		texts = append(texts, p.Text+"; set it with: "+p.Command)
		if !s.wrong[p] {
			s.log.Warn("a setting of this host is not as pods need it", "problem", p.Text, "command", p.Command)
		}
	}
	if len(wrong) == 0 && len(s.wrong) > 0 {
		s.log.Info("settings of this host are as pods need them")
	}
	s.wrong = wrong
	s.check.Fail(strings.Join(texts, "; "))
}
