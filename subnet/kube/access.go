package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"flannel/internal/loop"
)

// restConfig finds the API server and the credentials: a kubeconfig file, a
// URL, or what every pod has. A URL alone inside a pod is used with the pod's
// credentials.
func restConfig(o Options) (*rest.Config, error) {
	if o.Kubeconfig != "" {
		config, err := readKubeconfig(o.APIURL, o.Kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig-file: %w", err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	switch {
	case err == nil && o.APIURL != "":
		config.Host = o.APIURL
		return config, nil
	case err == nil:
		return config, nil
	case !errors.Is(err, rest.ErrNotInCluster):
		return nil, fmt.Errorf("configuration of the pod: %w", err)
	case o.APIURL != "":
		return &rest.Config{Host: o.APIURL}, nil
	}
	return nil, errors.New("--kubeconfig-file: missing: outside a pod use the path of a kubeconfig file, or --kube-api-url")
}

// readKubeconfig reads a kubeconfig file; apiURL replaces its server unless it
// is empty.
func readKubeconfig(apiURL, path string) (*rest.Config, error) {
	file, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil, err
	}
	if file.CurrentContext == "" && apiURL == "" {
		return nil, noCurrentContext(path, file)
	}
	return clientcmd.BuildConfigFromFlags(apiURL, path)
}

func noCurrentContext(path string, file *clientcmdapi.Config) error {
	contexts := "it has no contexts"
	if len(file.Contexts) > 0 {
		contexts = "its contexts: " + strings.Join(slices.Sorted(maps.Keys(file.Contexts)), ", ")
	}
	return fmt.Errorf("%s has no current-context (%s); set one: kubectl --kubeconfig %s config use-context NAME", path, contexts, path)
}

// checkCredentials returns an error if this node has no credentials.
func checkCredentials(o Options, c *rest.Config) error {
	switch {
	case c.BearerToken != "" || c.BearerTokenFile != "" || c.Username != "" || c.ExecProvider != nil ||
		c.AuthProvider != nil || c.CertFile != "" || len(c.CertData) > 0:
		return nil
	case o.Kubeconfig == "":
		return errors.New("requests are anonymous, because --kube-api-url alone has no credentials: use --kubeconfig-file")
	}
	user := ""
	if file, err := clientcmd.LoadFromFile(o.Kubeconfig); err == nil {
		if file.CurrentContext == "" {
			return fmt.Errorf("requests are anonymous, because %w", noCurrentContext(o.Kubeconfig, file))
		}
		if context := file.Contexts[file.CurrentContext]; context != nil {
			user = context.AuthInfo
		}
	}
	if user == "" {
		return fmt.Errorf("requests are anonymous, because the current context of %s has no user; set one: "+
			"kubectl --kubeconfig %s config set-context --current --user=NAME", o.Kubeconfig, o.Kubeconfig)
	}
	return fmt.Errorf("requests are anonymous, because user %q of %s has no credentials; set them: "+
		"kubectl --kubeconfig %s config set-credentials %s --token=TOKEN, or with --client-certificate and --client-key",
		user, o.Kubeconfig, o.Kubeconfig, user)
}

// isService reports whether the URL is that of the Service whose address every
// pod has in its environment.
func isService(url string) bool {
	host := os.Getenv("KUBERNETES_SERVICE_HOST")
	return host != "" && url == "https://"+net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT"))
}

// accessEvery is how often the files of access are read.
const accessEvery = 2 * time.Second

// access is the content of the files that tell how the API server is reached.
// Tokens and client certificates in files of their own are not among them:
// client-go reloads these by itself.
type access struct {
	files []string
	text  []byte
}

// readAccess reads the kubeconfig and the certificate of the authority. An
// error means that no client can be made of them.
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
// differs from what it was when the manager was made, and can be used: an
// expired certificate was renewed, a wrong authority corrected. An error means
// that ctx has ended.
func (m *Manager) AccessChanged(ctx context.Context) error {
	for {
		if err := loop.Wait(ctx, accessEvery); err != nil {
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

// Reach is where and with what the API server is reached.
type Reach struct {
	URL   string
	TLS   *tls.Config
	Token string
	// Proxy is that of the kubeconfig; nil leaves it to the environment.
	Proxy func(*http.Request) (*url.URL, error)
}

// Access returns how a manager with these options reaches the API server, for
// programs that look at it.
func Access(o Options) (Reach, error) {
	c, err := restConfig(o)
	if err != nil {
		return Reach{}, err
	}
	config, err := rest.TLSConfigFor(c)
	if err != nil {
		return Reach{}, err
	}
	token := c.BearerToken
	if c.BearerTokenFile != "" {
		text, err := os.ReadFile(c.BearerTokenFile)
		if err != nil {
			return Reach{}, err
		}
		token = strings.TrimSpace(string(text))
	}
	return Reach{c.Host, config, token, c.Proxy}, nil
}

// NodeName returns the name of this host's Node that the environment and the host
// name give; empty if only the API server can tell.
func NodeName(getenv func(string) string, hostname string) string {
	return chooseName(getenv, hostname).name
}
