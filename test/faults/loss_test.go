package main

import (
	"testing"
	"time"
)

func TestAFaultExplainsALossOfItsOwn(t *testing.T) {
	for name, tt := range map[string]struct {
		fault    fault
		backend  string
		from, to int
	}{
		"none":                {fault{}, vxlan, 0, 0},
		"after it":            {fault{cuts: time.Second}, vxlan, 20, 20},
		"all while it stands": {fault{cutsAll: true, cuts: time.Second}, vxlan, 80, 80},
		"a stopped daemon":    {fault{stops: true}, vxlan, 0, 0},
		"that packets pass":   {fault{stops: true}, udp, 100, 100},
		"three of ten":        {fault{cutsAll: true, percent: 30}, vxlan, 30, 50},
	} {
		got := drawn{fault: tt.fault}.mayLose(tt.backend, 3*time.Second, 1)
		if got < tt.from || got > tt.to {
			t.Errorf("%s: got %d, want %d to %d", name, got, tt.from, tt.to)
		}
	}
}
