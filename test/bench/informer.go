package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"flannel/internal/loop"
	"flannel/internal/testkit/kubeplane"
	"flannel/lab"
)

// informer is a client with flannel's pattern: it makes the requests of a
// client-go informer on whole Nodes as JSON, and keeps nothing of the answers.
type informer struct {
	lab  *lab.Lab
	host *lab.Host
	http *http.Client
	url  string
	// end stops the watch, and waits.
	end func()
}

// retryInterval is the pause after which an informer watches again.
const retryInterval = time.Second

func informersOn(l *lab.Lab, n int) []client {
	out := make([]client, 0, n)
	for _, h := range l.Hosts[:n] {
		out = append(out, &informer{lab: l, host: h, end: func() {}})
	}
	return out
}

func (i *informer) machine() *lab.Host { return i.host }

// start lists the Nodes, then watches them until stop.
func (i *informer) start(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", i.lab.Kubernetes.Plane.Kubeconfig(kubeplane.Daemon))
	if err != nil {
		return err
	}
	config.Dial = i.host.Dial
	if i.http, err = rest.HTTPClientFor(config); err != nil {
		return err
	}
	i.url = config.Host + "/api/v1/nodes"
	version, err := i.list(ctx)
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	first, err := i.open(running, version)
	if err != nil {
		cancel()
		return err
	}
	var run sync.WaitGroup
	run.Go(func() { i.follow(running, first, version) })
	i.end = func() {
		cancel()
		run.Wait()
		i.http.CloseIdleConnections()
	}
	return nil
}

func (i *informer) stop() error {
	i.end()
	i.end = func() {}
	return nil
}

// follow reads a watch and opens the next when it ends; it lists again if the
// server has forgotten the version.
func (i *informer) follow(ctx context.Context, events io.ReadCloser, version string) {
	for {
		err := errors.New("not open")
		if events != nil {
			err = read(events, &version)
			events.Close()
		}
		if loop.Wait(ctx, retryInterval) != nil {
			return
		}
		if errors.Is(err, errExpired) {
			if listed, err := i.list(ctx); err == nil {
				version = listed
			}
		}
		events, _ = i.open(ctx, version)
	}
}

// versioned is what an informer needs of an object.
type versioned struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
}

func (i *informer) list(ctx context.Context) (version string, err error) {
	body, err := i.get(ctx, "?resourceVersion=0")
	if err != nil {
		return "", err
	}
	defer body.Close()
	var list versioned
	err = json.NewDecoder(body).Decode(&list)
	return list.Metadata.ResourceVersion, err
}

// errExpired is the answer to a watch from a version that is too old.
var errExpired = errors.New("the version is too old")

// open begins a watch from a version on.
func (i *informer) open(ctx context.Context, version string) (io.ReadCloser, error) {
	return i.get(ctx, "?watch=true&allowWatchBookmarks=true&resourceVersion="+version)
}

// read follows a watch until it ends and keeps the version up to date.
func read(body io.Reader, version *string) error {
	for events := json.NewDecoder(body); ; {
		var event struct {
			Type   string    `json:"type"`
			Object versioned `json:"object"`
		}
		if err := events.Decode(&event); err != nil {
			return err
		}
		if event.Type == "ERROR" {
			return errExpired
		}
		*version = event.Object.Metadata.ResourceVersion
	}
}

func (i *informer) get(ctx context.Context, query string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+query, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := i.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	resp.Body.Close()
	if resp.StatusCode == http.StatusGone {
		return nil, errExpired
	}
	return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
}
