package kube

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestWhatTheServerIsTold checks the name of the program and the form of
// answers that it asks for.
func TestWhatTheServerIsTold(t *testing.T) {
	headers := make(chan http.Header, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header
		w.WriteHeader(http.StatusNotFound)
	}))
	defer s.Close()
	c, err := newClient(Options{APIURL: s.URL, Version: "v1.2.3"}, prefix, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.listAll(context.Background(), func(*Node) {}); err == nil {
		t.Error("no error")
	}
	h := <-headers
	if got := h.Get("User-Agent"); !strings.HasPrefix(got, "flanneld/v1.2.3 (linux/") {
		t.Errorf("User-Agent %q", got)
	}
	if got := h.Get("Accept"); !strings.HasPrefix(got, protobufType) {
		t.Errorf("Accept %q", got)
	}
}
