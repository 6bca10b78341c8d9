package subnettest

import "testing"

// test is one case of the suite.
type test struct {
	name string
	run  func(*testing.T, Harness)
}

// common holds for all stores.
func common() []test {
	pool := func(one, other string) func(*testing.T, Harness) {
		return func(t *testing.T, h Harness) { twentyAtOnce(t, h, one, other) }
	}
	return []test{
		{"twenty at once get disjoint IPv4 subnets", pool(IPv4Config, IPv4Config)},
		{"twenty at once get disjoint IPv6 subnets", pool(IPv6Config, IPv6Config)},
		{"twenty at once get disjoint subnets of both families", pool(DualConfig, DualConfig)},
		{"twenty at once get disjoint subnets in a mixture", pool(IPv4Config, DualConfig)},
		{"other attributes are published under the same subnet", otherAttributes},
		{"a deleted lease is published again", deletedIsPublishedAgain},
		{"a watch sees every change", watchSeesChanges},
		{"an outage loses nothing", outageLosesNothing},
	}
}

// choosing holds for stores in which the nodes choose their subnets
// themselves, and which hold the configuration.
func choosing() []test {
	return []test{
		{"config is waited for", configIsWaitedFor},
		{"a subnet is not shared with another node", notShared},
		{"a node gets its subnet again by its public address", againByPublicAddress},
		{"a node gets the subnet of an earlier run", againBySubnet},
		{"a lease that does not fit is replaced", misfitIsReplaced},
		{"a reservation stays one", reservationStaysOne},
		{"an earlier run is remembered", previous},
		{"of two records of a node that of its earlier subnet is used", twoRecords},
		{"a node that got another address while away keeps its subnet", readdressed},
		{"a full network is an error", fullNetwork},
		{"a lease that was created again is reported", createdAgainIsReported},
		{"a lease taken over is lost", takenOverIsLost},
		{"a value that cannot be decoded is replaced", undecodableIsReplaced},
		{"the subnet stays with the node that has its address", addressOfAnother},
		{"a lease deleted and taken is lost", deletedAndTakenIsLost},
	}
}

// Conformance runs the whole suite. Each test gets a store of its own from
// start.
func Conformance(t *testing.T, start func(t *testing.T) Harness) {
	run(t, append(choosing(), common()...), start)
}

// ConformanceAssigned runs the suite for a store in which the cluster chooses
// the subnet of each node and nobody else can have it.
func ConformanceAssigned(t *testing.T, start func(t *testing.T) Harness) {
	run(t, common(), start)
}

func run(t *testing.T, tests []test, start func(t *testing.T) Harness) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) { c.run(t, start(t)) })
	}
}
