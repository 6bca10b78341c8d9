// Command pack makes images and releases from programs that are built already.
// `make image` and `make release` run it, and the lab for the images of its
// nodes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// job is what is to be packed.
type job struct {
	// programs is a folder with one folder for each architecture.
	programs string
	archs    []string
	version  string
	// ref is the name of the image.
	ref string
	// native is the architecture of the image that one machine imports.
	native string
	// iptables is a folder with the programs of iptables for each architecture,
	// which go into the image; empty for an image without.
	iptables string
	// out is where the result goes, source the root of the repository.
	out, source string
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "local" {
		return local(os.Stdin)
	}
	var j job
	var archs string
	fs := flag.NewFlagSet("pack", flag.ContinueOnError)
	fs.StringVar(&j.programs, "programs", "", "`folder` with one folder of programs for each architecture")
	fs.StringVar(&archs, "archs", "", "`architectures`, as Go calls them, separated by blanks")
	fs.StringVar(&j.version, "version", "", "`version` of the programs")
	fs.StringVar(&j.ref, "image", "", "`name` of the image")
	fs.StringVar(&j.native, "native", "", "`architecture` of the archive for one machine")
	fs.StringVar(&j.iptables, "iptables", "", "`folder` that dist/iptables/fetch has made: put iptables into the image")
	fs.StringVar(&j.out, "out", "", "`folder` for the result")
	fs.StringVar(&j.source, "source", ".", "`folder` of the sources")
	if err := fs.Parse(args); err != nil {
		return err
	}
	j.archs = strings.Fields(archs)
	if len(j.archs) == 0 || j.programs == "" || j.out == "" || j.version == "" || j.ref == "" {
		return errors.New("-programs, -archs, -version, -image and -out are needed")
	}
	switch what := fs.Arg(0); what {
	case "image":
		return j.image()
	case "release":
		return j.release()
	default:
		return fmt.Errorf("%q is not image, release or local", what)
	}
}
