package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"flannel/doctor"
	"flannel/lab"
)

// examine runs flanneld doctor on all hosts at once, after the faults were undone
// and the cluster is as it should be. What it finds then is a false alarm, but for
// what a fault explains.
func (s *suite) examine(ctx context.Context, faults []drawn) error {
	errs := make([]error, len(s.lab.Hosts))
	var group errgroup.Group
	for i, h := range s.lab.Hosts {
		group.Go(func() error {
			errs[i] = s.examineHost(ctx, h, faults)
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

func (s *suite) examineHost(ctx context.Context, h *lab.Host, faults []drawn) error {
	out, _, err := h.Doctor(ctx, "-o", "json")
	if err != nil {
		return err
	}
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return fmt.Errorf("%s: read what doctor prints: %w\n%s", h.Name, err, out)
	}
	var alarms []string
	for _, found := range report.Findings {
		if !explained(found, faults) {
			alarms = append(alarms, fmt.Sprintf("%s: %s", found.Check, found.Problem))
		}
	}
	for _, u := range report.Unread {
		alarms = append(alarms, fmt.Sprintf("not read: %s: %s", u.Source, u.Problem))
	}
	if len(alarms) == 0 {
		return nil
	}
	return fmt.Errorf("%s: doctor finds what is not there:\n%s", h.Name, strings.Join(alarms, "\n"))
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
