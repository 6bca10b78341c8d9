package network

import (
	"io/fs"
	"os"
	"syscall"

	"flannel/internal/statedir"
)

// lastRun is the document from which a later start learns that this software was
// the last to serve the node. flannel does not mark its routes on the uplink:
// those that exist may be its routes only if it ran since, in this boot, and then
// it has written subnet.env.
type lastRun struct {
	// Boot is when that was.
	Boot string
	// File is subnet.env as it was left.
	File fileMark
}

const lastRunDocument = "last-run"

// fileMark distinguishes a file from one that was written in its place.
type fileMark struct {
	Inode    uint64
	Modified int64 // nanoseconds
}

// markOf returns the mark of a file; the zero mark if there is none.
func markOf(path string) fileMark {
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}
	}
	return fileMark{inode(info), info.ModTime().UnixNano()}
}

func inode(info fs.FileInfo) uint64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ino
}

// recall finds out who served the node before this start.
func (n *Network) recall() {
	file := markOf(n.SubnetFile)
	n.fileFound = file != fileMark{}
	var last lastRun
	if err := n.State.Load(lastRunDocument, &last); err != nil {
		return
	}
	n.remembered = last
	if n.fileFound {
		n.ranLast = file == last.File
	} else {
		n.ranLast = last.Boot != "" && last.Boot == statedir.BootID()
	}
}

// remember writes that this software serves the node, after subnet.env exists.
func (n *Network) remember() {
	now := lastRun{statedir.BootID(), markOf(n.SubnetFile)}
	if now == n.remembered {
		return
	}
	n.remembered = now // A folder that cannot be written to is not tried with each pass.
	if err := n.State.Save(lastRunDocument, now); err != nil {
		n.Log.Warn("record of this run not written", "err", err)
	}
}
