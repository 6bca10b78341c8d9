package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"flannel/internal/install"
)

// command is what the program does instead of being the daemon.
type command struct {
	name, arguments, about string
	run                    func(c command, args []string, stdout io.Writer) error
}

// commands are all of them, in the order of the usage.
func commands() []command {
	return []command{
		{"status", "[flags] [POD-ADDRESS|NODE]", "show this node and how each peer is reached; with an argument, the path to it step by step", showStatus},
		{"doctor", "[flags]", "check what prevents pods on this host from reaching others, and print the commands that fix it", runDoctor},
		{"cleanup", "[flags]", "remove what this software and flannel created on this host", runCleanup},
		{"install-cni", "[flags]", "install the CNI plugin and its network configuration", installCNI},
		{"install-conf", "SOURCE TARGET", "copy a file atomically, with its permissions", installConf},
		{"cp", "[-f] SOURCE... TARGET", "copy files, for the init containers of flannel's manifest", copyFiles},
	}
}

// arguments are the command line without the name of the program. A program
// that is called as one of its commands is that command: the image has
// /opt/bin/install-conf and /bin/cp as links.
func arguments(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if name := filepath.Base(argv[0]); findCommand([]string{name}) != nil {
		return append([]string{name}, argv[1:]...)
	}
	return argv[1:]
}

func findCommand(args []string) *command {
	for _, c := range commands() {
		if len(args) > 0 && args[0] == c.name {
			return &c
		}
	}
	return nil
}

// do runs the command and returns the exit code.
func (c command) do(args []string, stdout, stderr io.Writer) int {
	err := c.run(c, args, stdout)
	var usage usageError
	var code exitCode
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "flanneld %s: %v\nUsage: flanneld %s %s\n", c.name, err, c.name, c.arguments)
		return exitUsage
	}
	fmt.Fprintf(stderr, "flanneld %s: %v\n", c.name, err)
	return exitError
}

// parse reads the flags of a command; as with the daemon, help goes to stdout.
func (c command) parse(fs *flag.FlagSet, args []string, stdout io.Writer) error {
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "Usage: flanneld %s %s\n\n%s\n\n", c.name, c.arguments, c.about)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return err
	}
	if err != nil {
		return usageError{err}
	}
	return nil
}

// parseAll is parse for a command without arguments.
func (c command) parseAll(fs *flag.FlagSet, args []string, stdout io.Writer) error {
	if err := c.parse(fs, args, stdout); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usageError{fmt.Errorf("argument %q is not a flag", fs.Arg(0))}
	}
	return nil
}

// installFlags are those of install-cni.
type installFlags struct{ plugin, binDir, conf, confDir string }

func newInstallFlagSet(o *installFlags) *flag.FlagSet {
	fs := flag.NewFlagSet("install-cni", flag.ContinueOnError)
	fs.StringVar(&o.binDir, "bin-dir", "/opt/cni/bin", "`folder` of the runtime's plugins; if empty, the plugin is not installed")
	fs.StringVar(&o.plugin, "plugin", "", "plugin `file` to install; the file flannel beside this program by default")
	fs.StringVar(&o.confDir, "conf-dir", "/etc/cni/net.d", "`folder` of the runtime's network configurations; if empty, the configuration is not installed")
	fs.StringVar(&o.conf, "conf", "/etc/kube-flannel/cni-conf.json", "network configuration `file` to install as "+install.ConfName)
	return fs
}

// installCNI puts the plugin first: a configuration makes the runtime assume that
// there is one.
func installCNI(c command, args []string, stdout io.Writer) error {
	var o installFlags
	if err := c.parseAll(newInstallFlagSet(&o), args, stdout); err != nil {
		return err
	}
	if o.binDir != "" {
		if err := installPlugin(o); err != nil {
			return err
		}
	}
	if o.confDir != "" {
		return install.Conf(o.conf, o.confDir)
	}
	return nil
}

func installPlugin(o installFlags) error {
	if o.plugin == "" {
		program, err := os.Executable()
		if err != nil {
			return err
		}
		o.plugin = filepath.Join(filepath.Dir(program), "flannel")
	}
	return install.File(o.plugin, filepath.Join(o.binDir, "flannel"))
}

func installConf(c command, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	if err := c.parse(fs, args, stdout); err != nil {
		return err
	}
	if fs.NArg() != 2 {
		return usageError{fmt.Errorf("%d arguments", fs.NArg())}
	}
	return install.File(fs.Arg(0), fs.Arg(1))
}

// copyFiles is cp, for manifests of flannel that run it in our image.
func copyFiles(c command, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.Bool("f", false, "accepted for compatibility; a target is replaced whatever its permissions")
	if err := c.parse(fs, args, stdout); err != nil {
		return err
	}
	last := fs.NArg() - 1
	if last < 1 {
		return usageError{errors.New("source or target is missing")}
	}
	return install.Copy(fs.Args()[:last], fs.Arg(last))
}
