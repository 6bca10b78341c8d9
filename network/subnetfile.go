package network

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"flannel/internal/loop"
	"flannel/internal/statedir"
	"flannel/subnet/env"
)

// subnetFileEvery is how often the subnet file is checked: no event shows that
// somebody has removed it.
const subnetFileEvery = 2 * time.Second

// subnetFile is subnet.env. It belongs to prepare, and then to the loop.
type subnetFile struct {
	path  string
	log   *slog.Logger
	state *statedir.Dir

	// previous is what an earlier run has written; found is whether there was a
	// file at the start, and ours whether this software was the last to serve the
	// node.
	previous    env.Env
	found, ours bool
	// last is what the state folder has. Its mark is zero if others wrote the file
	// at the same moment.
	last lastRun
	// written is whether the last write succeeded.
	written bool
	// retry paces what restores the file; it is not checked before retryAt.
	retry   loop.Backoff
	retryAt time.Time
}

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
	Mode     uint32
}

// markOf returns the mark of a file; the zero mark if there is none.
func markOf(path string) fileMark {
	var stat unix.Stat_t
	if unix.Lstat(path, &stat) != nil {
		return fileMark{}
	}
	return fileMark{stat.Ino, stat.Mtim.Nano(), stat.Mode}
}

// readSubnetFile finds out what an earlier run has written, and who served the
// node before this start. A file that cannot be read is as good as none; it is
// written anew.
func readSubnetFile(log *slog.Logger, path string, state *statedir.Dir) subnetFile {
	f := subnetFile{path: path, log: log, state: state}
	mark := markOf(f.path)
	f.found = mark != fileMark{}
	if f.state.Load(lastRunDocument, &f.last) == nil {
		if f.found {
			f.ours = mark == f.last.File
		} else {
			f.ours = f.last.Boot != "" && f.last.Boot == statedir.BootID()
		}
	}
	previous, err := env.Read(f.path)
	if err != nil {
		f.log.Debug("no earlier subnet file", "path", f.path, "err", err)
		return f
	}
	f.previous = previous
	return f
}

// write makes the file hold e and reports whether it did not before.
func (f *subnetFile) write(e env.Env) (changed bool, err error) {
	// The mark is taken before the file is compared, so that later changes are
	// noticed. After it was written both happen again.
	mark := markOf(f.path)
	if changed, err = env.Write(f.path, e); changed {
		mark = markOf(f.path)
		if again, _ := env.Write(f.path, e); again {
			mark = fileMark{}
		}
	}
	if f.written = err == nil; !f.written {
		return false, err
	}
	now := lastRun{statedir.BootID(), mark}
	if now != f.last {
		f.last = now // A folder that cannot be written to is not tried with each pass.
		if err := f.state.Save(lastRunDocument, now); err != nil {
			f.log.Warn("record of this run not written", "err", err)
		}
	}
	return changed, nil
}

// due reports whether the file is to be restored. It is restored ever more rarely
// while somebody else, such as a second daemon with the same --subnet-file, writes
// it again and again. While it cannot be written, passes are repeated anyway.
func (f *subnetFile) due(now time.Time) bool {
	if now.Before(f.retryAt) || !f.written {
		return false
	}
	if mark := markOf(f.path); mark == f.last.File && mark != (fileMark{}) {
		f.retry.Reset()
		return false
	}
	f.retryAt = now.Add(f.retry.Next())
	return true
}
