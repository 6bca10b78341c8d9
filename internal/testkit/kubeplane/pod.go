package kubeplane

import (
	"context"
	"net/url"
)

// Pod is what tests look at of a Pod object.
type Pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp *string
	}
	Spec   struct{ NodeName string }
	Status struct {
		PodIP      string
		Conditions []struct{ Type, Status string }
	}
}

// Ready reports whether a pod serves and is to stay.
func (p *Pod) Ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == nil
		}
	}
	return false
}

// Pods reads the pods of a namespace that a selector of labels matches.
func (a *API) Pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	var list struct{ Items []Pod }
	path := "/api/v1/namespaces/" + namespace + "/pods?labelSelector=" + url.QueryEscape(selector)
	return list.Items, a.Get(ctx, path, &list)
}
