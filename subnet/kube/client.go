package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"
)

// Timeouts of requests. A watch has none: the server ends it, and pings detect
// a dead connection.
const (
	dialTimeout    = 8 * time.Second
	requestTimeout = 20 * time.Second
	listTimeout    = 2 * time.Minute
	pageSize       = 500
)

const (
	protobufType = "application/vnd.kubernetes.protobuf"
	jsonType     = "application/json"
)

// version is the API version that all requests are made in.
var version = schema.GroupVersion{Version: "v1"}

// client makes the few requests that leases need. It never retries.
type client struct {
	server server
	prefix string // of the annotations that are kept
	rest   rest.Interface
	http   *http.Client
	params kuberuntime.ParameterCodec
	conns  *connrotation.ConnectionTracker
	// lost is called with the cause if a connection ends because nothing came
	// back over it. It must not block.
	lost func(error)
	// remote is the address of the server at the last connection.
	remote atomic.Pointer[netip.Addr]
}

// newClient returns a client. Of the annotations of a Node it keeps those that
// start with the prefix.
func newClient(o Options, prefix string, lost func(error)) (*client, error) {
	config, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	c := &client{
		server: server{
			url: strings.TrimSuffix(config.Host, "/"), service: isService(config.Host),
			anonymous: checkCredentials(o, config),
		},
		prefix: prefix,
		conns:  connrotation.NewConnectionTracker(),
		lost:   lost,
	}
	scheme := kuberuntime.NewScheme() // for what is not a Node: errors and parameters
	metav1.AddToGroupVersion(scheme, version)
	c.params = kuberuntime.NewParameterCodec(scheme)
	config.GroupVersion, config.APIPath = &version, "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = protobufType, protobufType
	config.UserAgent = fmt.Sprintf("flanneld/%s (%s/%s)", o.Version, runtime.GOOS, runtime.GOARCH)
	config.QPS = -1 // requests are few, and paced by the apiBreaker, as are retries: see MaxRetries
	config.Dial = connrotation.NewDialerWithTracker(c.dial, c.conns).DialContext
	config.Wrap(pinging)
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	if c.rest, err = rest.RESTClientForConfigAndClient(config, c.http); err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	return c, nil
}

// close ends all connections.
func (c *client) close() {
	c.http.CloseIdleConnections()
	c.conns.CloseAll()
}

// nodePatch is the JSON of a strategic merge patch of a Node.
type nodePatch struct {
	Metadata struct {
		// UID makes the server reject the patch if there is another Node of
		// this name.
		UID         types.UID          `json:"uid"`
		Annotations map[string]*string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Status struct {
		Conditions []conditionAt `json:"conditions,omitempty"`
	} `json:"status,omitzero"`
}

// condition is one of a Node, conditionAt that with its times as RFC 3339.
type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

type conditionAt struct {
	condition
	LastTransitionTime string `json:"lastTransitionTime"`
	LastHeartbeatTime  string `json:"lastHeartbeatTime"`
}

// patchStatus merges a patch into a Node by its status subresource and returns
// the result.
func (c *client) patchStatus(ctx context.Context, n *Node, patch nodePatch) (*Node, error) {
	patch.Metadata.UID = n.UID
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	result := &Node{}
	err = c.read(c.rest.Patch(types.StrategicMergePatchType).MaxRetries(0).Resource("nodes").Name(n.Name).SubResource("status").
		Body(body).Do(ctx), result.unmarshal)
	return result, err
}

// read decodes the object that the server has answered with.
func (c *client) read(answer rest.Result, unmarshal func(message []byte, prefix string) error) error {
	if err := answer.Error(); err != nil {
		return err
	}
	raw, err := answer.Raw()
	if err != nil {
		return err
	}
	object, err := unwrap(raw)
	if err != nil {
		return err
	}
	return unmarshal(object, c.prefix)
}

// list reads a page of Nodes while it arrives: the whole of it would be most of
// this process's memory. The server compresses it, because Go's transport asks for
// that. visit, unless nil, is given each Node as the server has sent it, until it
// returns.
func (c *client) list(ctx context.Context, o metav1.ListOptions, visit func(node []byte) error) (*NodeList, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	body, err := c.rest.Get().Resource("nodes").VersionedParams(&o, c.params).MaxRetries(0).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return readNodes(bufio.NewReaderSize(body, filterBuffer), c.prefix, visit)
}

// listAll visits all Nodes, page by page.
func (c *client) listAll(ctx context.Context, visit func(*Node)) error {
	for o := (metav1.ListOptions{Limit: pageSize}); ; {
		page, err := c.list(ctx, o, nil)
		if err != nil {
			return err
		}
		for i := range page.Items {
			visit(&page.Items[i])
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return nil
		}
	}
}

// watch watches Nodes. passed are the fingerprints of Nodes as the caller knows
// them.
func (c *client) watch(ctx context.Context, o metav1.ListOptions, passed map[string]uint64) (watch.Interface, error) {
	o.Watch = true
	// client-go's Watch would return a timeout and a closed connection as an empty
	// watch, which hides them.
	body, err := c.rest.Get().Resource("nodes").VersionedParams(&o, c.params).MaxRetries(0).Stream(ctx)
	if err != nil {
		return nil, err
	}
	reporter := apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "ClientWatchDecoding")
	return watch.NewStreamWatcherWithLogger(klog.FromContext(ctx), newWatchFilter(body, c.prefix, passed), reporter), nil
}

// nodeOfPod returns the name of the Node that a pod runs on.
func (c *client) nodeOfPod(ctx context.Context, namespace, name string) (string, error) {
	var pod struct{ Spec struct{ NodeName string } }
	err := readJSON(ctx, c.rest.Get().Namespace(namespace).Resource("pods").Name(name), &pod)
	return pod.Spec.NodeName, err
}

// hasCondition reports whether the status of a Node has a condition.
func (c *client) hasCondition(ctx context.Context, node string, wanted condition) (bool, error) {
	var n struct {
		Status struct{ Conditions []condition }
	}
	err := readJSON(ctx, c.rest.Get().Resource("nodes").Name(node), &n)
	return slices.Contains(n.Status.Conditions, wanted), err
}

// readJSON decodes those fields of an object that v has.
func readJSON(ctx context.Context, get *rest.Request, v any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	raw, err := get.SetHeader("Accept", jsonType).MaxRetries(0).Do(ctx).Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("decode the API server's answer: %w", err)
	}
	return nil
}

// createEvent posts an Event.
func (c *client) createEvent(ctx context.Context, namespace string, event any) error {
	body, err := json.Marshal(event)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.rest.Post().MaxRetries(0).Namespace(namespace).Resource("events").
		SetHeader("Content-Type", jsonType).SetHeader("Accept", jsonType).Body(body).Do(ctx).Error()
}

// probe makes a request that costs the server nothing. Any answer is a success,
// also a rejection.
func (c *client) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := c.rest.Get().AbsPath("/version").MaxRetries(0).SetHeader("Accept", jsonType).Do(ctx).Error()
	if apierrors.IsNotFound(err) || refused(err) {
		return nil
	}
	return err
}
