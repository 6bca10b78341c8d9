package kube

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// readKubeconfig reads a kubeconfig file; apiURL replaces its server unless it
// is empty.
func readKubeconfig(apiURL, path string) (*rest.Config, error) {
	file, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil, err
	}
	if file.CurrentContext == "" && apiURL == "" {
		return nil, errors.New(noCurrentContext(path, file))
	}
	return clientcmd.BuildConfigFromFlags(apiURL, path)
}

func noCurrentContext(path string, file *clientcmdapi.Config) string {
	contexts := "it has no contexts"
	if len(file.Contexts) > 0 {
		contexts = "its contexts: " + strings.Join(slices.Sorted(maps.Keys(file.Contexts)), ", ")
	}
	return fmt.Sprintf("%s has no current-context (%s); set one: kubectl --kubeconfig %s config use-context NAME", path, contexts, path)
}

// missingCredentials says how to give this node credentials, or nothing when
// it has some.
func missingCredentials(o Options, c *rest.Config) string {
	switch {
	case c.BearerToken != "" || c.BearerTokenFile != "" || c.Username != "" || c.ExecProvider != nil ||
		c.AuthProvider != nil || c.CertFile != "" || len(c.CertData) > 0:
		return ""
	case o.Kubeconfig == "":
		return "requests are anonymous, because --kube-api-url alone has no credentials: use --kubeconfig-file"
	}
	user := ""
	if file, err := clientcmd.LoadFromFile(o.Kubeconfig); err == nil {
		if file.CurrentContext == "" {
			return "requests are anonymous, because " + noCurrentContext(o.Kubeconfig, file)
		}
		if context := file.Contexts[file.CurrentContext]; context != nil {
			user = context.AuthInfo
		}
	}
	if user == "" {
		return fmt.Sprintf("requests are anonymous, because the current context of %s has no user; set one: "+
			"kubectl --kubeconfig %s config set-context --current --user=NAME", o.Kubeconfig, o.Kubeconfig)
	}
	return fmt.Sprintf("requests are anonymous, because user %q of %s has no credentials; set them: "+
		"kubectl --kubeconfig %s config set-credentials %s --token=TOKEN, or with --client-certificate and --client-key",
		user, o.Kubeconfig, o.Kubeconfig, user)
}
