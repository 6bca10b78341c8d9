package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"flannel/internal/secret"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "hunter2"
	s := secret.New(text)
	inside := struct{ Password secret.String }{s}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "password", s, "options", inside)
	asJSON, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"%v":         fmt.Sprintf("%v", s),
		"%s":         fmt.Sprintf("<%s>", s),
		"%#v":        fmt.Sprintf("%#v", s),
		"%q":         fmt.Sprintf("%q", s),
		"pointer":    fmt.Sprintf("%v", &s),
		"struct %v":  fmt.Sprintf("%v", inside),
		"struct %+v": fmt.Sprintf("%+v", inside),
		"struct %#v": fmt.Sprintf("%#v", inside),
		"log":        log.String(),
		"JSON":       string(asJSON),
	} {
		if strings.Contains(got, text) || !strings.Contains(got, "[redacted]") {
			t.Errorf("%s prints %q", name, got)
		}
	}
	if s.Reveal() != text {
		t.Errorf("Reveal = %q, want %q", s.Reveal(), text)
	}
}

func TestEmptySecretPrintsNothing(t *testing.T) {
	if got := fmt.Sprint(secret.String{}); got != "" {
		t.Errorf("an empty secret prints %q", got)
	}
}
