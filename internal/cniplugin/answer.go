package cniplugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// codeNotAvailable is what STATUS answers when an ADD would fail.
const codeNotAvailable = 50

// delegateError names the delegate in its error, and keeps the code.
func delegateError(name string, err error) error {
	var e *types.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("delegate %s: %w", name, err)
	}
	return types.NewError(e.Code, fmt.Sprintf("delegate %s: %s", name, e.Msg), e.Details)
}

// unknownVerb reports whether a delegate does not know what it was asked for:
// it was built before the verb was invented.
func unknownVerb(err error) bool {
	var e *types.Error
	if !errors.As(err, &e) {
		return false
	}
	return strings.Contains(e.Msg, "unknown CNI_COMMAND") || strings.Contains(e.Msg, "version does not allow")
}

// oneLine joins errors, because a runtime shows one line.
func oneLine(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}
