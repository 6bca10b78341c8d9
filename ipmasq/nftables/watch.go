package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/loop"
)

// headerSize is that of the header in front of the attributes.
const headerSize = 4

// Watch calls own when our rules may have changed, other when those of others may
// have, and both when events were lost. The calls must not block. It runs until ctx
// ends.
func (d *Driver) Watch(ctx context.Context, own, other func()) error {
	for {
		err := d.watchOnce(ctx, own, other)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.Log.Debug("events of nf_tables lost", "err", err)
		own()
		other()
		if err := loop.Wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// watchOnce reads events until ctx ends or an error.
func (d *Driver) watchOnce(ctx context.Context, own, other func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: d.Namespace, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return fmt.Errorf("watch nf_tables: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// The rules may have changed before the subscription.
	own()
	other()
	for {
		messages, err := conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			own()
			other()
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch family, table, chain := subject(m); {
			case table == "":
			case slices.Contains(tableNames[:], table):
				own()
			case isForward(family, table, chain):
				own()
				other()
			case !aboutSet(m): // the elements of others' sets are not read
				other()
			}
		}
	}
}

// aboutSet reports whether an event is about a set or its elements.
func aboutSet(m netlink.Message) bool {
	kind := m.Header.Type & 0xff
	return kind >= unix.NFT_MSG_NEWSET && kind <= unix.NFT_MSG_DELSETELEM
}

// subject returns the table of an event about a table, chain, rule or set, and the
// chain of one about a chain or rule.
func subject(m netlink.Message) (family nftables.TableFamily, table, chain string) {
	chainAttr := uint16(0) // none
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET, unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		chainAttr = unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		chainAttr = unix.NFTA_RULE_CHAIN
	default:
		return 0, "", ""
	}
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < headerSize {
		return 0, "", ""
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
	if err != nil {
		return 0, "", ""
	}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.NFTA_TABLE_NAME: // all of these have it first
			table = strings.TrimRight(attrs.String(), "\x00")
		case chainAttr:
			chain = strings.TrimRight(attrs.String(), "\x00")
		}
	}
	return nftables.TableFamily(m.Data[0]), table, chain
}
