package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// Bounds for requests. A watch has none: the server ends it, and pings notice
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

// client makes the few requests that leases need. It never retries. Its
// watches tell only what matters to leases.
type client struct {
	server server
	rest   rest.Interface
	http   *http.Client
	params kuberuntime.ParameterCodec
	conns  *connrotation.ConnectionTracker
	// lost is called with the cause when a connection ends because nothing came
	// back over it. It must not block.
	lost func(error)
	// remote is where the last connection went.
	remote atomic.Pointer[netip.Addr]
}

func newClient(o Options, prefix string) (*client, error) {
	config, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	c := &client{
		server: server{
			url: strings.TrimSuffix(config.Host, "/"), service: isService(config.Host),
			credentials: missingCredentials(o, config),
		},
		conns: connrotation.NewConnectionTracker(),
		lost:  func(error) {},
	}
	scheme := newScheme()
	c.params = kuberuntime.NewParameterCodec(scheme)
	config.GroupVersion, config.APIPath = &version, "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = protobufType, protobufType+","+jsonType
	config.UserAgent = fmt.Sprintf("flanneld/%s (%s/%s)", o.Version, runtime.GOOS, runtime.GOARCH)
	config.QPS = -1 // what is sent is few, and paced by the gate
	dial := paced(c.storing(newDialer().DialContext), func(err error) { c.lost(err) })
	config.Dial = connrotation.NewDialerWithTracker(connrotation.DialFunc(dial), c.conns).DialContext
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return noting(sieved(pinging(next), prefix)) })
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	if c.rest, err = rest.RESTClientForConfigAndClient(config, c.http); err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	return c, nil
}

// storing remembers where connections go.
func (c *client) storing(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			if to, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
				a := to.AddrPort().Addr().Unmap()
				c.remote.Store(&a)
			}
		}
		return conn, err
	}
}

// StoreAddrs implements subnet.Manager.
func (m *Manager) StoreAddrs() []netip.Addr {
	if a := m.client.remote.Load(); a != nil {
		return []netip.Addr{*a}
	}
	return nil
}

// restConfig finds the API server and the credentials: a kubeconfig file, a
// URL, or what every pod has. A URL alone inside a pod goes with the pod's
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

// isService reports whether the URL is the Service that every pod is told of.
func isService(url string) bool {
	host := os.Getenv("KUBERNETES_SERVICE_HOST")
	return host != "" && url == "https://"+net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT"))
}

// close ends all connections.
func (c *client) close() {
	c.http.CloseIdleConnections()
	c.conns.CloseAll()
}

// patchStatus merges JSON into a Node by its status subresource and returns
// the result.
func (c *client) patchStatus(ctx context.Context, name string, patch any) (*Node, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	n := &Node{}
	err = c.rest.Patch(types.StrategicMergePatchType).Resource("nodes").Name(name).SubResource("status").
		Body(body).Do(ctx).Into(n)
	return n, err
}

func (c *client) list(ctx context.Context, o metav1.ListOptions) (*NodeList, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	l := &NodeList{}
	err := c.rest.Get().Resource("nodes").VersionedParams(&o, c.params).Do(ctx).Into(l)
	return l, err
}

// listAll visits all Nodes as they are in the store, page by page.
func (c *client) listAll(ctx context.Context, visit func(*Node)) error {
	for o := (metav1.ListOptions{Limit: pageSize}); ; {
		page, err := c.list(ctx, o)
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

func (c *client) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	var failed error
	w, err := c.rest.Get().Resource("nodes").VersionedParams(&o, c.params).MaxRetries(0).
		Watch(context.WithValue(ctx, failureKey{}, &failed))
	if err == nil && failed != nil {
		// client-go makes an empty watch of a time-out and of a connection
		// that was closed; then nobody would learn of it.
		return nil, failed
	}
	return w, err
}

// failureKey is the key of a context under which a transport notes, in an
// *error, why a request had no answer.
type failureKey struct{}

// noting returns a transport that notes failures for those who ask for them.
func noting(next http.RoundTripper) http.RoundTripper {
	return transport(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if failed, ok := req.Context().Value(failureKey{}).(*error); ok {
			*failed = err
		}
		return resp, err
	})
}

// nodeOfPod returns the name of the Node that a pod runs on.
func (c *client) nodeOfPod(ctx context.Context, namespace, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	raw, err := c.rest.Get().Namespace(namespace).Resource("pods").Name(name).
		SetHeader("Accept", jsonType).Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var pod struct{ Spec struct{ NodeName string } }
	if err := json.Unmarshal(raw, &pod); err != nil {
		return "", fmt.Errorf("decode pod: %w", err)
	}
	return pod.Spec.NodeName, nil
}

// createEvent posts an Event.
func (c *client) createEvent(ctx context.Context, namespace string, event any) error {
	body, err := json.Marshal(event)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.rest.Post().Namespace(namespace).Resource("events").
		SetHeader("Content-Type", jsonType).SetHeader("Accept", jsonType).Body(body).Do(ctx).Error()
}

// probe asks for something that costs the server nothing. Any answer of the
// server counts, also a refusal.
func (c *client) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := c.rest.Get().AbsPath("/version").SetHeader("Accept", jsonType).Do(ctx).Error()
	if apierrors.IsNotFound(err) || refused(err) {
		return nil
	}
	return err
}
