package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"flannel/lab"
)

// converge waits until every host is as it should be; see wrong.
func (s *suite) converge(ctx context.Context, limit time.Duration, uses []use) error {
	end := time.Now().Add(limit)
	for {
		wrong := s.wrong(ctx, uses)
		if wrong == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not as it should be after %s:\n%w", limit.Round(time.Second), wrong)
		}
		if err := pause(ctx, interval); err != nil {
			return errors.Join(err, wrong)
		}
	}
}

// wrong compares all hosts with what they should have, what is cheap to look at
// first. The only records that count are those of the hosts, of the marker and
// of uses.
func (s *suite) wrong(ctx context.Context, uses []use) error {
	ctx, cancel := context.WithTimeout(ctx, scaled(5*time.Second, busy()))
	defer cancel()
	published, err := s.records(ctx, uses)
	if err != nil {
		return err
	}
	for i, h := range s.lab.Hosts {
		if err := s.wrongHost(i, h, published); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for i, h := range s.lab.Hosts {
		code, body, err := h.Flanneld().Get(ctx, "/readyz")
		if err != nil || code != http.StatusOK {
			return errors.Join(err, fmt.Errorf("%s: /readyz: %d %s", h.Name, code, body))
		}
		have, err := h.Exec(ctx, "sh", "-c", rules)
		if diff := orderedDifference(s.rules[i], have); diff != "" {
			return errors.Join(err, fmt.Errorf("%s: packet filter rules (- missing, + too much):\n%s", h.Name, diff))
		}
	}
	if s.backend == vxlan {
		for _, h := range s.lab.Hosts {
			if err := wrongOffload(ctx, h); err != nil {
				return err
			}
		}
	}
	for i, h := range s.lab.Hosts {
		have, err := usedPeers(ctx, h)
		if diff := difference(wantedPeers(i, published), have); diff != "" || err != nil {
			return errors.Join(err, fmt.Errorf("%s: peers in its status (- missing, + too much):\n%s", h.Name, diff))
		}
	}
	return s.lab.PingAll(ctx).Err()
}

func (s *suite) wrongHost(i int, h *lab.Host, published []record) error {
	env, err := h.ReadFile(lab.DefaultSubnetFile)
	if err != nil {
		return err
	}
	if diff := orderedDifference(s.env[i], string(env)); diff != "" {
		return fmt.Errorf("subnet.env:\n%s", diff)
	}
	uplink, err := h.Interface(lab.Uplink)
	if err != nil {
		return err
	}
	have, err := actual(h.Handle)
	if err != nil {
		return err
	}
	if diff := difference(wanted(s.backend, uplink.Attrs(), i, published), have); diff != "" {
		return fmt.Errorf("kernel state (- missing, + too much):\n%s", diff)
	}
	return nil
}

// wrongOffload checks that checksum offload of the vxlan devices is off, as
// backendKeys wants it.
func wrongOffload(ctx context.Context, h *lab.Host) error {
	for _, dev := range vxlanDevices {
		have, err := h.Exec(ctx, "ethtool", "--show-features", dev)
		if err != nil {
			return err
		}
		if !strings.Contains(have, "\ntx-checksumming: off\n") {
			return fmt.Errorf("%s: tx checksum offload of %s is on", h.Name, dev)
		}
	}
	return nil
}
