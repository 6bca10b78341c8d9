package kubeplane

import (
	"context"
	"net/http"
	"strings"
)

// Node is what tests look at of a Node object.
type Node struct {
	Metadata struct {
		Name, UID   string
		Annotations map[string]string
	}
	Spec struct {
		PodCIDR  string
		PodCIDRs []string
	}
	Status struct {
		Conditions []struct{ Type, Status, Reason, Message string }
	}
}

const nodesPath = "/api/v1/nodes"

// CreateNode makes a Node; without pod CIDRs the controller manager gives it
// some.
func (a *API) CreateNode(ctx context.Context, name string, podCIDRs ...string) error {
	return a.CreateAnnotatedNode(ctx, name, nil, podCIDRs...)
}

// CreateAnnotatedNode is CreateNode for a Node that a daemon has published.
func (a *API) CreateAnnotatedNode(ctx context.Context, name string, annotations map[string]any, podCIDRs ...string) error {
	node := map[string]any{"metadata": map[string]any{"name": name, "annotations": annotations}}
	if len(podCIDRs) > 0 {
		node["spec"] = map[string]any{"podCIDR": podCIDRs[0], "podCIDRs": podCIDRs}
	}
	_, err := a.Do(ctx, http.MethodPost, nodesPath, JSON, node)
	return err
}

// GetNode reads a Node.
func (a *API) GetNode(ctx context.Context, name string) (Node, error) {
	var n Node
	return n, a.Get(ctx, nodesPath+"/"+name, &n)
}

// Nodes reads all Nodes.
func (a *API) Nodes(ctx context.Context) ([]Node, error) {
	var list struct{ Items []Node }
	return list.Items, a.Get(ctx, nodesPath, &list)
}

// DeleteNode removes a Node; one that is not there is no error.
func (a *API) DeleteNode(ctx context.Context, name string) error {
	_, err := a.Do(ctx, http.MethodDelete, nodesPath+"/"+name, JSON, nil)
	if IsCode(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// Annotate sets annotations of a Node; nil values remove them.
func (a *API) Annotate(ctx context.Context, name string, annotations map[string]any) error {
	_, err := a.Do(ctx, http.MethodPatch, nodesPath+"/"+name, MergePatch,
		map[string]any{"metadata": map[string]any{"annotations": annotations}})
	return err
}

// DaemonRules are what the manifest lets the daemon do, EventRules what beside
// that in the namespace default; it works without these.
const (
	DaemonRules = `[
	{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
	{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
	{"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}
]`
	EventRules = `[{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]`
	NoRules    = `[]`
)

const rolePath = "/apis/rbac.authorization.k8s.io/v1/"

// roleName is that of the role of the user Daemon; it is not the manifest's.
const roleName = "test-daemon"

// AllowDaemon lets the user Daemon do what the manifest lets the daemon do.
func (a *API) AllowDaemon(ctx context.Context) error {
	return a.AllowDaemonOnly(ctx, DaemonRules, EventRules)
}

// roles are where a role lives: for all of the cluster, or for a namespace.
var roles = []struct{ prefix, role, binding string }{
	{rolePath, "ClusterRole", "ClusterRoleBinding"},
	{rolePath + "namespaces/default/", "Role", "RoleBinding"},
}

// AllowDaemonOnly lets the user Daemon do what the first rules allow in the
// cluster and the second ones in the namespace default, and nothing else. The
// API server knows of it a moment later.
func (a *API) AllowDaemonOnly(ctx context.Context, cluster, namespaced string) error {
	for i, rules := range []string{cluster, namespaced} {
		r := roles[i]
		if err := a.applyRole(ctx, r.prefix, r.role, `"rules": `+rules); err != nil {
			return err
		}
		err := a.applyRole(ctx, r.prefix, r.binding, `"subjects": [{"kind": "User", "name": "`+Daemon+`"}],
			"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "`+r.role+`", "name": "`+roleName+`"}`)
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *API) applyRole(ctx context.Context, prefix, kind, fields string) error {
	_, err := a.Do(ctx, http.MethodPatch, prefix+strings.ToLower(kind)+"s/"+roleName+"?fieldManager=test&force=true", ApplyPatch,
		`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "`+kind+`", "metadata": {"name": "`+roleName+`"}, `+fields+`}`)
	return err
}

// ForbidDaemon takes it all away again.
func (a *API) ForbidDaemon(ctx context.Context) error {
	for _, r := range roles {
		if _, err := a.Do(ctx, http.MethodDelete, r.prefix+strings.ToLower(r.binding)+"s/"+roleName, JSON, nil); err != nil {
			return err
		}
	}
	return nil
}
