package node

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on a thread that ends afterwards, so fn may change the
// thread's namespaces.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Deferred, so that a Goexit in fn does not hang the caller.
		var err error
		defer func() { done <- err }()
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: it would stay in the namespaces,
			// and /proc/self with it.
			err = onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		err = fn()
	}()
	return <-done
}
