package main

import "time"

// wait is a documented wait: why a recovery may take longer than usual, for how
// long at most, and the section of Documentation that promises it.
type wait struct {
	name    string
	why     string
	most    time.Duration
	section string
}

// waitOutage lets a store be away for so long.
func waitOutage(away time.Duration) wait {
	return wait{
		name: "outage", why: "after an outage the store is asked again within twice its length plus 2s, at most 30s",
		most: min(2*away+2*time.Second, 30*time.Second), section: "running.md#an-outage-of-the-store",
	}
}

// aMoment is the outage of what is undone within 3s: to make it and to undo it
// take their time.
const aMoment = 4 * time.Second

// forMinutes is more than what matters to waitOutage.
const forMinutes = time.Minute

func waitResync() wait {
	return wait{"resync", "iptables sends no events: its rules are compared every 5s", 5 * time.Second, "masquerading.md#healing"}
}

func waitStart() wait {
	return wait{"start", "a daemon that starts waits up to 5s for the store", 5 * time.Second, "running.md#a-start-without-the-store"}
}

// waitUplink is the grace, during which the store cannot be reached either.
func waitUplink() wait {
	const grace = 10 * time.Second
	return wait{
		"uplink", "an address that the uplink had before is used only after 10s, which is also an outage of the store",
		grace + waitOutage(grace).most, "configuration.md#the-uplink",
	}
}

func waitGuard() wait {
	return wait{
		"mass loss", "peers that suddenly disappear from the store are removed after two lists, 30s apart; a list without this node's record does not count",
		65 * time.Second, "architecture.md#what-is-deleted-and-when",
	}
}

func waitContention() wait {
	return wait{"contention", "two daemons with the same public address each restore their record after up to a minute", time.Minute, "configuration.md#leases-in-etcd"}
}

func waitAnnotations() wait {
	return wait{"annotations", "annotations that are changed again and again are restored at least once a minute", time.Minute, "kubernetes.md#annotations"}
}
