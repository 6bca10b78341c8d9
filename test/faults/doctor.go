package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flannel/doctor"
	"flannel/lab"
)

// examine runs flanneld doctor on all hosts at once, after the faults were undone
// and the cluster is as it should be. What it still finds after this time is a false
// alarm, but for what a fault explains.
func (s *suite) examine(ctx context.Context, faults []drawn, within time.Duration) error {
	errs := make([]error, len(s.lab.Hosts))
	var group errgroup.Group
	for i, h := range s.lab.Hosts {
		group.Go(func() error {
			errs[i] = examineHost(ctx, h, faults, time.Now().Add(within))
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

// examineHost repeats the examination until nothing is found: the daemon reports
// what it could not write until it writes it again.
func examineHost(ctx context.Context, h *lab.Host, faults []drawn, end time.Time) error {
	for {
		alarms, err := falseAlarms(ctx, h, faults)
		if err != nil || len(alarms) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: doctor finds what is not there:\n%s", h.Name, strings.Join(alarms, "\n"))
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

func falseAlarms(ctx context.Context, h *lab.Host, faults []drawn) (alarms []string, err error) {
	out, _, err := h.Doctor(ctx, "-o", "json")
	if err != nil {
		return nil, err
	}
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return nil, fmt.Errorf("%s: read what doctor prints: %w\n%s", h.Name, err, out)
	}
	for _, found := range report.Findings {
		if !explained(found, faults) {
			alarms = append(alarms, fmt.Sprintf("%s: %s", found.Check, found.Problem))
		}
	}
	for _, u := range report.Unread {
		alarms = append(alarms, fmt.Sprintf("not read: %s: %s", u.Source, u.Problem))
	}
	return alarms, nil
}

// explained reports whether a fault causes a finding even after it was undone.
func explained(found doctor.Finding, faults []drawn) bool {
	for _, d := range faults {
		for _, words := range d.leaves {
			if strings.Contains(found.Problem, words) {
				return true
			}
		}
	}
	return false
}
