// Command flannel-lab runs a cluster on one machine: hosts, pods, a real etcd
// and a real flanneld per host, all in namespaces of its own.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// command is a sub-command. Its run returns the exit code.
type command struct {
	name, usage, summary string
	run                  func(args []string) int
}

func commands() []command {
	return []command{
		{"up", "up N", "start N hosts and keep them", up},
		{"exec", "exec HOST -- CMD", "run a command on host1, or in the pod host1/pod1", execute},
		{"kubectl", "kubectl ARG...", "run kubectl against a lab that is up with --kubernetes", kubectl},
		{"status", "status", "show hosts, leases, readiness and pods", status},
		{"down", "down", "end a lab", down},
		{"demo", "demo", "start three hosts, ping, break something, watch it heal", demo},
	}
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		usage(os.Stderr)
		return 2
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		usage(os.Stdout)
		return 0
	case holdCommand:
		return hold(args[1:])
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:])
		}
	}
	fmt.Fprintf(os.Stderr, "flannel-lab: there is no command %q; see flannel-lab --help\n", args[0])
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "flannel-lab runs a cluster on one machine, in namespaces of its own.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  flannel-lab %-18s %s\n", c.usage, c.summary)
	}
	fmt.Fprint(w, "\nEvery command has --help. With --name, several labs can run side by side.\n")
}

// newFlags returns the flag set of a sub-command, with its help.
func newFlags(name, usage, text string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: flannel-lab %s\n\n%s\n\nflags:\n", usage, text)
		fs.PrintDefaults()
	}
	return fs
}

// parse reads flags before, between and after want positional arguments. When
// it returns false the command ends with the code.
func parse(fs *flag.FlagSet, args []string, want int) (positional []string, code int, ok bool) {
	for rest := args; ; {
		err := fs.Parse(rest)
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(os.Stdout)
			fs.Usage()
			return nil, 0, false
		}
		if err != nil {
			return nil, fail(2, fmt.Errorf("%s: %w; see flannel-lab %s --help", fs.Name(), err, fs.Name())), false
		}
		if rest = fs.Args(); len(rest) == 0 {
			break
		}
		positional, rest = append(positional, rest[0]), rest[1:]
	}
	if len(positional) != want {
		return nil, fail(2, fmt.Errorf("%s: %d arguments, want %d; see flannel-lab %s --help",
			fs.Name(), len(positional), want, fs.Name())), false
	}
	return positional, 0, true
}

// fail prints an error and returns the exit code.
func fail(code int, err error) int {
	fmt.Fprintln(os.Stderr, "flannel-lab:", err)
	return code
}
