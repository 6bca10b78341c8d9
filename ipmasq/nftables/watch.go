package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"flannel/internal/wait"
)

// eventGroup is the netlink group of changes to nf_tables (NFNLGRP_NFTABLES).
const eventGroup = 7

// Numbers of messages of nf_tables (linux/netfilter/nf_tables.h).
const (
	msgNewTable = 0
	msgDelTable = 2
	msgNewChain = 3
	msgDelChain = 5
	msgNewRule  = 6
	msgDelRule  = 8
	msgNewSet   = 9
	msgDelSet   = 11
	msgNewElem  = 12
	msgDelElem  = 14
	msgGetGen   = 16
	// attrTable is the name of the table in the messages above.
	attrTable = 1
	// attrGeneration is the number in the answer to msgGetGen.
	attrGeneration = 1
)

// headerSize is that of the header in front of the attributes.
const headerSize = 4

// Watch calls own when one of our tables has changed, or events were lost, and
// other when another table has. The calls must not block. It runs until ctx
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
		if err := wait.For(ctx, time.Second); err != nil {
			return err
		}
	}
}

// watchOnce reads events until ctx ends or an error.
func (d *Driver) watchOnce(ctx context.Context, own, other func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: d.Namespace, Groups: 1 << (eventGroup - 1)})
	if err != nil {
		return fmt.Errorf("watch nf_tables: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// What changed before there was a watch.
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
			switch table := tableOf(m); {
			case table == "":
			case slices.Contains(tableNames[:], table):
				own()
			case !aboutSet(m): // what sets of others hold is not judged
				other()
			}
		}
	}
}

// aboutSet reports whether an event is about a set or its elements.
func aboutSet(m netlink.Message) bool {
	kind := m.Header.Type & 0xff
	return kind >= msgNewSet && kind <= msgDelElem
}

// tableOf returns the table that an event is about, when it is about a table,
// a chain, a rule or a set.
func tableOf(m netlink.Message) string {
	switch m.Header.Type & 0xff {
	case msgNewTable, msgDelTable, msgNewChain, msgDelChain, msgNewRule, msgDelRule,
		msgNewSet, msgDelSet, msgNewElem, msgDelElem:
	default:
		return ""
	}
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < headerSize {
		return ""
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
	if err != nil {
		return ""
	}
	for attrs.Next() {
		if attrs.Type() == attrTable {
			return strings.TrimRight(attrs.String(), "\x00")
		}
	}
	return ""
}

// Generation returns a number that changes with every change to nf_tables. An
// error means that the kernel has no nf_tables.
func (d *Driver) Generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: d.Namespace})
	if err != nil {
		return 0, fmt.Errorf("open nf_tables: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | msgGetGen, Flags: netlink.Request},
		Data:   make([]byte, headerSize),
	})
	if err != nil {
		return 0, fmt.Errorf("read the generation of nf_tables: %w", err)
	}
	for _, m := range answers {
		if len(m.Data) < headerSize {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(m.Data[headerSize:])
		if err != nil {
			return 0, fmt.Errorf("read the generation of nf_tables: %w", err)
		}
		attrs.ByteOrder = binary.BigEndian
		for attrs.Next() {
			if attrs.Type() == attrGeneration {
				return attrs.Uint32(), nil
			}
		}
	}
	return 0, errors.New("read the generation of nf_tables: no answer")
}
