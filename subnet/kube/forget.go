package kube

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Forget removes the annotations that this node publishes from its Node, and returns
// their keys. What an operator has set stays. With dryRun nothing is written.
func Forget(ctx context.Context, o Options, dryRun bool) (removed []string, err error) {
	keys, err := newAnnotations(o.AnnotationPrefix)
	if err != nil {
		return nil, err
	}
	c, err := newClient(o, keys.prefix, func(error) {})
	if err != nil {
		return nil, err
	}
	defer c.close()
	name := chooseName(o.Getenv, o.Hostname)
	if name.name == "" {
		if name.name, err = c.nodeOfPod(ctx, name.namespace, name.pod); err != nil {
			return nil, name.unknown(err)
		}
	}
	list, err := c.list(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name.name}, nil)
	if err != nil {
		return nil, fmt.Errorf("read Node %q: %w", name.name, plain(err))
	}
	if len(list.Items) == 0 {
		return nil, notFound(name.name, nil)
	}
	node := &list.Items[0]
	var patch nodePatch
	patch.Metadata.Annotations = map[string]*string{}
	for _, key := range slices.Concat([]string{keys.managed, keys.backendType}, keys.publicIP[:], keys.data[:]) {
		if _, there := node.Annotations[key]; there {
			patch.Metadata.Annotations[key] = nil
			removed = append(removed, key)
		}
	}
	if len(removed) == 0 || dryRun {
		return removed, nil
	}
	if _, err := c.patchStatus(ctx, node, patch); err != nil {
		return nil, fmt.Errorf("annotations of Node %q not removed: %w", node.Name, plain(err))
	}
	return removed, nil
}
