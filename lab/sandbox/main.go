package sandbox

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main is the body of main for a command that does its work in a sandbox. It
// takes the error of parsing the flags, which was printed, and ends the process
// with the exit code: that of inside, whose context ends with a signal, or 2 if
// the flags are wrong. When the sandbox has ended, afterwards run outside of it.
func Main(name string, parsed error, inside func(context.Context) int, afterwards ...func() error) {
	switch {
	case errors.Is(parsed, flag.ErrHelp):
		os.Exit(0)
	case parsed != nil:
		os.Exit(2)
	}
	outside := Outside()
	code, err := Run(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return inside(ctx)
	})
	if outside {
		for _, each := range afterwards {
			err = errors.Join(err, each())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		code = max(code, 1)
	}
	os.Exit(code)
}
