package main

import "time"

// hold is a documented wait: why a recovery may take longer than usual, for how
// long at most, and the section of Documentation that promises it.
type hold struct {
	name    string
	why     string
	most    time.Duration
	section string
}

// holdOutage lets a store be away for so long.
func holdOutage(away time.Duration) hold {
	return hold{
		name: "outage", why: "a store that was away is asked again within twice that time and 2s, at most 30s",
		most: min(2*away+2*time.Second, 30*time.Second), section: "running.md#an-outage-of-the-store",
	}
}

// aMoment is the outage of what is undone within 3s: to make it and to undo it
// take their time.
const aMoment = 4 * time.Second

// forMinutes is more than what matters to holdOutage.
const forMinutes = time.Minute

func holdResync() hold {
	return hold{"resync", "iptables has no events: its rules are compared every 5s", 5 * time.Second, "masquerading.md#healing"}
}

func holdStart() hold {
	return hold{"start", "a daemon that starts waits up to 5s for the store", 5 * time.Second, "running.md#a-start-without-the-store"}
}

// holdUplink is the grace, during which the store cannot be reached either.
func holdUplink() hold {
	const grace = 10 * time.Second
	return hold{
		"uplink", "an address that the uplink had before is used after 10s, and the store was away as long",
		grace + holdOutage(grace).most, "configuration.md#the-uplink",
	}
}

func holdGuard() hold {
	return hold{
		"mass loss", "peers that are suddenly gone from the store are removed after two lists 30s apart; a list without this node's record does not count",
		65 * time.Second, "architecture.md#what-is-deleted-and-when",
	}
}

func holdDispute() hold {
	return hold{"dispute", "of two daemons with one public address each restores its record after up to a minute", time.Minute, "configuration.md#leases-in-etcd"}
}

func holdFight() hold {
	return hold{"annotations", "annotations that are changed again and again are restored once a minute at least", time.Minute, "kubernetes.md#annotations"}
}
