package kube

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAnEventThatFailsIsNoOutage posts to a server that answers everything but
// Events, as with an admission webhook that is broken.
func TestAnEventThatFailsIsNoOutage(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	o := Options{
		APIURL: s.URL, AnnotationPrefix: prefix, NetConfigPath: filepath.Join(t.TempDir(), "net-conf.json"), Log: slog.New(slog.DiscardHandler),
		Reachable: func(err error) { t.Errorf("reachable: %v", err) },
	}
	if err := os.WriteFile(o.NetConfigPath, []byte(`{"Network": "10.5.0.0/16"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.client.close()
	m.own.set(&Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	if err := m.PostEvent(t.Context(), "HostSettings", "net.ipv4.ip_forward is 0"); err == nil {
		t.Error("no error")
	}
}

func TestALongMessageIsCut(t *testing.T) {
	text, err := json.Marshal(event{"R", strings.Repeat("ä", maxMessage), time.Unix(1700000000, 5)}.json("n1"))
	var e struct {
		Metadata                struct{ Name string }
		InvolvedObject          struct{ Kind, Name, UID string }
		Message, FirstTimestamp string
	}
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil || len(e.Message) > maxMessage || !strings.HasPrefix(e.Message, "ää") || e.InvolvedObject.UID != "n1" ||
		e.Metadata.Name != "n1.17979cfe362a0005" || e.FirstTimestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("%s, %v", text, err)
	}
}
