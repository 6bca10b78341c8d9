package main

import (
	"context"
	"time"

	"flannel/internal/ipfam"
	"flannel/lab/ping"
)

// pingInterval is the time between two requests, and so the shortest silence
// that is seen.
const pingInterval = 5 * time.Millisecond

// startPings lets the pod of the first host ping the pods of all others, in
// both families.
func (c *cluster) startPings() (pings []*ping.Series, err error) {
	from := c.lab.Hosts[0].Pods()[0]
	for _, h := range c.lab.Hosts[1:] {
		for _, f := range ipfam.All() {
			p, err := from.StartPing(h.Pods()[0].Addr(f), pingInterval)
			if err != nil {
				return pings, err
			}
			pings = append(pings, p)
		}
	}
	return pings, nil
}

// longestSilence waits for one more reply to each of the pings, which ends the
// last silence, and returns the longest.
func longestSilence(ctx context.Context, pings []*ping.Series) (time.Duration, error) {
	now, longest := time.Now(), time.Duration(0)
	for _, p := range pings {
		err := until(ctx, "a reply", pingInterval, func() (bool, error) {
			s := p.Stats()
			longest = max(longest, s.LongestGap)
			return s.Last.After(now), s.SendErr
		})
		if err != nil {
			return 0, err
		}
	}
	return longest, nil
}

// stop ends pings. Those that got lost are waited for in the background.
func (c *cluster) stop(pings []*ping.Series) {
	for _, p := range pings {
		c.ending.Go(func() { p.Stop() })
	}
}
