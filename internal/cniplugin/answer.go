package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// codeNotAvailable is the code of STATUS if an ADD would fail.
const codeNotAvailable = 50

// delegateError names the delegate in its error, and keeps the code.
func delegateError(name string, err error) error {
	var e *types.Error
	switch {
	case strings.Contains(err.Error(), "failed to find plugin"): // of package invoke; it names the folders
		return fmt.Errorf("delegate %s: %w: install the CNI plugins there", name, err)
	case !errors.As(err, &e):
		return fmt.Errorf("delegate %s: %w", name, err)
	}
	return types.NewError(e.Code, fmt.Sprintf("delegate %s: %s", name, e.Msg), e.Details)
}

// The versions of the specification that brought the verbs which not every
// delegate knows.
const (
	sinceCheck  = "0.4.0"
	sinceStatus = "1.1.0"
	sinceGC     = "1.1.0"
)

// call is one of the Delegate functions of package invoke.
type call func(ctx context.Context, plugin string, conf []byte, exec invoke.Exec) error

// ask passes a verb on to a delegate. One that does not know the verb counts as
// successful.
func ask(ctx context.Context, verb call, since, plugin, path string, conf []byte) error {
	err := verb(ctx, plugin, conf, nil)
	if err == nil || isUnknownVerb(err) || isOlder(ctx, plugin, path, since) {
		return nil
	}
	return delegateError(plugin, err)
}

// isUnknownVerb reports whether a delegate answered that it does not know the verb.
func isUnknownVerb(err error) bool {
	var e *types.Error
	if !errors.As(err, &e) {
		return false
	}
	return strings.Contains(e.Msg, "unknown CNI_COMMAND") || strings.Contains(e.Msg, "version does not allow")
}

// isOlder reports whether a plugin only knows versions before this one. The
// answers of such plugins to verbs of later versions are of all kinds.
func isOlder(ctx context.Context, plugin, path, since string) bool {
	file, err := invoke.FindInPath(plugin, filepath.SplitList(path))
	if err != nil {
		return false
	}
	info, err := invoke.GetVersionInfo(ctx, file, nil)
	if err != nil {
		return false
	}
	for _, v := range info.SupportedVersions() {
		if reached, err := version.GreaterThanOrEqualTo(v, since); err != nil || reached {
			return false
		}
	}
	return true
}

// oneLine joins errors, because a runtime shows one line.
func oneLine(errs ...error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}
