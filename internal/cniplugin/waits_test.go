package cniplugin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flannel/internal/socket"
)

func TestTheErrorEndsWithWhatTheDaemonWaitsFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	listener, err := socket.Listen(t.Context(), socket.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "flanneld is not ready yet\nwaiting for: a pod CIDR of Node a")
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() {
		_ = server.Close()
		<-ended
	}()

	args := &skel.CmdArgs{ContainerID: "a", StdinData: fmt.Appendf(nil, `{"name": "n", "subnetFile": %q}`, file)}
	p := Plugin{Patience: -1}
	for verb, err := range map[string]error{"ADD": p.Add(t.Context(), args), "STATUS": p.Status(t.Context(), args)} {
		var e *types.Error
		if want := "flanneld is not ready yet: waiting for: a pod CIDR of Node a"; !errors.As(err, &e) || e.Details != want {
			t.Errorf("%s: got %v, want that it ends with %q", verb, err, want)
		}
	}
}
