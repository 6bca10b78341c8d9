package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	goiptables "github.com/coreos/go-iptables/iptables"

	"flannel/internal/ipfam"
	"flannel/ipmasq"
)

// lockWait is how many seconds to wait for the xtables lock before the check fails
// and is repeated.
const lockWait = 5

// Mode is a kind of iptables: where its programs keep the rules.
type Mode string

// The modes.
const (
	NFT    Mode = "nft"
	Legacy Mode = "legacy"
)

// errLocked is the error if another program holds the lock of the legacy tables for
// longer than lockWait.
var errLocked = errors.New("another program holds the xtables lock")

// lockHeld reports whether a program has failed with this exit status because it
// waited for the lock in vain.
func (t *tool) lockHeld(status int) bool {
	const resourceProblem = 4
	return t.mode == Legacy && status == resourceProblem
}

// protocols are the families as the library names them.
var protocols = ipfam.Pair[goiptables.Protocol]{goiptables.ProtocolIPv4, goiptables.ProtocolIPv6}

// tool is the pair of programs that read and write the rules of one family.
type tool struct {
	family  ipfam.Family
	reader  *goiptables.IPTables
	restore string
	save    string
	mode    Mode
}

// openTool finds a tool by the name of its program, such as iptables-nft.
func openTool(f ipfam.Family, name string) (*tool, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	t := &tool{family: f}
	if t.restore, err = exec.LookPath(name + "-restore"); err != nil {
		return nil, err
	}
	// The program that lists everything is optional.
	t.save, _ = exec.LookPath(name + "-save")
	if t.mode, err = modeOf(path); err != nil {
		return nil, err
	}
	t.reader, err = goiptables.New(goiptables.Path(path), goiptables.IPFamily(protocols[f]), goiptables.Timeout(lockWait))
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	return t, nil
}

// modeOf asks a program for its kind. Programs older than iptables-nft do not print
// it.
func modeOf(path string) (Mode, error) {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	if strings.Contains(string(out), "nf_tables") {
		return NFT, nil
	}
	return Legacy, nil
}

// randomFully reports whether the tool knows the option.
func (t *tool) randomFully() bool { return t.reader.HasRandomFully() }

// read returns what the kernel holds of one table.
func (t *tool) read(c chain) (have, error) {
	var h have
	base, exists, err := t.list(c.Table, c.Base)
	if err == nil && !exists {
		// Base chains always exist, but the nft programs refuse a chain with rules that
		// they cannot show.
		err = fmt.Errorf("read chain %s of table %s: %s cannot show it; look with: nft list table %s %s",
			c.Base, c.Table, filepath.Base(t.restore), map[bool]string{true: "ip", false: "ip6"}[t.family == ipfam.V4], c.Table)
	}
	if err != nil {
		return h, err
	}
	own, exists, err := t.list(c.Table, c.Name)
	if err != nil {
		return h, err
	}
	return have{base: c.parse(c.Base, base), own: c.parse(c.Name, own), exists: exists}, nil
}

// list returns the lines of a chain. If the chain does not exist, the exit status is
// 1; the messages differ.
func (t *tool) list(table ipmasq.Table, chain string) (lines []string, exists bool, err error) {
	lines, err = t.reader.List(string(table), chain)
	var failed *goiptables.Error
	switch {
	case errors.As(err, &failed) && failed.ExitStatus() == 1:
		return nil, false, nil
	case errors.As(err, &failed) && t.lockHeld(failed.ExitStatus()):
		return nil, false, errLocked
	case err != nil:
		return nil, false, fmt.Errorf("read chain %s of table %s: %w", chain, table, err)
	}
	return lines, true, nil
}

// write runs a script as one transaction.
func (t *tool) write(ctx context.Context, s *script) error {
	args := []string{"--noflush"}
	if t.waits() {
		args = append(args, "--wait", strconv.Itoa(lockWait))
	}
	cmd := exec.CommandContext(ctx, t.restore, args...)
	cmd.Stdin = strings.NewReader(s.text())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if t.lockHeld(cmd.ProcessState.ExitCode()) {
		return errLocked
	}
	if err != nil {
		text := strings.Join(strings.Fields(stderr.String()), " ")
		return fmt.Errorf("write table %s with %s: %w: %s", s.chain.Table, filepath.Base(t.restore), err, text)
	}
	return nil
}

// waits reports whether the tool can wait for the lock when it writes, as it can
// since version 1.6.2.
func (t *tool) waits() bool {
	a, b, c := t.reader.GetIptablesVersion()
	return a > 1 || a == 1 && (b > 6 || b == 6 && c >= 2)
}
