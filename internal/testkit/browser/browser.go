// Package browser opens pages in a real Chromium without a screen.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"flannel/internal/testkit/nstest"
)

// limit bounds how long an answer of the browser is waited for.
const limit = 60 * time.Second

// Tab is one page of a browser that ends with its test. It is in a network namespace,
// so that it reaches nothing else.
type Tab struct {
	t       testing.TB
	to      *os.File
	from    *os.File
	answers *bufio.Reader
	session string
	last    int
	// Errors are what the browser has complained about: exceptions of scripts, and
	// what the policy of a page forbids.
	Errors []string
}

// message is one of the DevTools protocol, in either direction.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

// New starts a browser in a namespace. The test is skipped if there is none.
func New(t testing.TB, ns *nstest.NS) *Tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: test/deps installs it")
	}
	fromTest, to, err := os.Pipe()
	must(t, err)
	from, toTest, err := os.Pipe()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, path, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--user-data-dir="+dir,
		"--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--no-first-run", "about:blank")
	// It is killed, and leaves its temporary files behind.
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	// In a PID namespace of its own all its processes end together with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	cmd.ExtraFiles = []*os.File{fromTest, toTest} // 3 and 4, as the protocol has it
	ns.Do(func() { err = cmd.Start() })
	must(t, err)
	must(t, errors.Join(fromTest.Close(), toTest.Close()))
	b := &Tab{t: t, to: to, from: from, answers: bufio.NewReader(from)}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		_ = errors.Join(to.Close(), from.Close())
	})
	b.attach()
	return b
}

func (b *Tab) attach() {
	b.t.Helper()
	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
}

// Resize sets the size of the window, and whether the user prefers dark pages.
func (b *Tab) Resize(width, height int, dark bool) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	scheme := map[bool]string{true: "dark", false: "light"}[dark]
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Script turns scripts on or off for pages that are opened later.
func (b *Tab) Script(on bool) {
	b.t.Helper()
	b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": !on}, nil)
}

// Open opens a page and waits until it is there.
func (b *Tab) Open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	for b.read().Method != "Page.loadEventFired" {
	}
}

// Eval returns what an expression of JavaScript is, as text. A promise is waited for.
func (b *Tab) Eval(expression string) string {
	b.t.Helper()
	var out struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &out)
	if out.Exception != nil {
		b.t.Fatalf("%s: %s", expression, out.Exception.Text)
	}
	return fmt.Sprint(out.Result.Value)
}

// Screenshot writes what the window shows, as PNG.
func (b *Tab) Screenshot(path string) {
	b.t.Helper()
	var out struct {
		Data string `json:"data"`
	}
	b.call("Page.captureScreenshot", nil, &out)
	image, err := base64.StdEncoding.DecodeString(out.Data)
	must(b.t, err)
	must(b.t, os.WriteFile(path, image, 0o644))
}

// call asks the browser and waits for its answer.
func (b *Tab) call(method string, params, result any) {
	b.t.Helper()
	b.last++
	text, err := json.Marshal(message{ID: b.last, Session: b.session, Method: method, Params: params})
	must(b.t, err)
	_, err = b.to.Write(append(text, 0))
	must(b.t, err)
	for {
		m := b.read()
		if m.ID != b.last {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error)
		}
		if result != nil {
			must(b.t, json.Unmarshal(m.Result, result))
		}
		return
	}
}

// read returns the next message.
func (b *Tab) read() message {
	b.t.Helper()
	must(b.t, b.from.SetReadDeadline(time.Now().Add(limit)))
	text, err := b.answers.ReadBytes(0)
	must(b.t, err)
	text = text[:len(text)-1]
	var m message
	must(b.t, json.Unmarshal(text, &m))
	if m.Method == "Runtime.exceptionThrown" || m.Method == "Log.entryAdded" && strings.Contains(string(text), `"level":"error"`) {
		b.Errors = append(b.Errors, string(text))
	}
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
