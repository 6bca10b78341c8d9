package kube

import (
	"bytes"
	"context"
	"os"
	"time"

	"k8s.io/client-go/rest"

	"flannel/internal/wait"
)

// accessEvery is how often the files are looked at that say how the API server
// is reached.
const accessEvery = 2 * time.Second

// access is what those files hold. Tokens and client certificates in files of
// their own are none of them: client-go reads these again by itself.
type access struct {
	files []string
	text  []byte
}

// readAccess reads the kubeconfig and the certificate of the authority, and
// reports whether a client can be made of them.
func readAccess(o Options) (access, error) {
	config, err := restConfig(o)
	if err != nil {
		return access{}, err
	}
	if _, err := rest.TLSConfigFor(config); err != nil {
		return access{}, err
	}
	a := access{}
	for _, file := range []string{o.Kubeconfig, config.TLSClientConfig.CAFile} {
		if file != "" {
			a.files = append(a.files, file)
		}
	}
	a.text, err = a.read()
	return a, err
}

func (a access) read() ([]byte, error) {
	var all []byte
	for _, file := range a.files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all = append(all, text...)
	}
	return all, nil
}

// AccessChanged blocks until the kubeconfig or the certificate of the authority
// is another than when the manager was made, and can be used: an expired
// certificate was renewed, a wrong authority corrected. An error means that ctx
// has ended.
func (m *Manager) AccessChanged(ctx context.Context) error {
	for {
		if err := wait.For(ctx, accessEvery); err != nil {
			return err
		}
		text, err := m.access.read()
		if err != nil || bytes.Equal(text, m.access.text) {
			continue
		}
		if _, err := readAccess(m.o); err == nil {
			return nil
		}
	}
}
