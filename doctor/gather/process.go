package gather

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"flannel/internal/socket"
)

// process is the daemon's. Its words are empty if they cannot be read, as in another
// container.
type process struct {
	pid           int
	args, environ []string
}

// process finds the daemon that listens at the socket; the zero process if none does.
func (o Options) process() process {
	if o.Daemon != "" {
		return process{}
	}
	pid, err := socket.PID(socket.Path(o.SubnetFile))
	if err != nil || pid == 0 {
		return process{}
	}
	p := process{pid: pid}
	p.args, _ = words(pid, "cmdline")
	p.environ, _ = words(pid, "environ")
	return p
}

// words reads a file of a process, whose strings end with a zero byte.
func words(pid int, file string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), file))
	if err != nil || len(text) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}

// file returns the path of a file as the process sees it.
func (p process) file(path string) string {
	return filepath.Join("/proc", fmt.Sprint(p.pid), "root", path)
}

const redacted = "[redacted]"

var (
	// secretName is that of a flag, a variable or a key whose value is a secret. Names of
	// files with keys are none.
	secretName = regexp.MustCompile(`(?i)pass|token|secret|psk|credential|private|key$`)
	// userInfo is the part of a URL that may hold a password.
	userInfo = regexp.MustCompile(`://[^/@\s"]+@`)
	// ourVariables are the only ones of the environment that a bundle has.
	ourVariables = regexp.MustCompile(`^(FLANNELD_|NODE_NAME=|POD_NAME|KUBERNETES_SERVICE_|(?i:https?_proxy|no_proxy)=)`)
)

// secrets are the values on the command line and in the environment of the daemon that
// must not be shown, wherever they appear.
func (p process) secrets() []string {
	var out []string
	for i, word := range slices.Concat(p.args, p.environ) {
		name, value, assigned := strings.Cut(word, "=")
		if !assigned && i+1 < len(p.args) {
			value = p.args[i+1]
		}
		if value != "" && (strings.HasPrefix(word, "-") || i >= len(p.args)) && secretName.MatchString(name) {
			out = append(out, value)
		}
	}
	// A secret may contain another.
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return out
}

// hide takes secrets out of a text.
func hide(text []byte, secrets []string) []byte {
	for _, s := range secrets {
		text = bytes.ReplaceAll(text, []byte(s), []byte(redacted))
	}
	return userInfo.ReplaceAll(text, []byte("://"+redacted+"@"))
}

// commandLine lists what the daemon was started with, one word per line.
func (p process) commandLine() []byte {
	if len(p.args) == 0 {
		return []byte("no daemon, or one whose command line cannot be read here\n")
	}
	out := fmt.Appendf(nil, "process %d\n", p.pid)
	for _, word := range p.args {
		out = fmt.Appendf(out, "%s\n", word)
	}
	for _, word := range p.environ {
		if ourVariables.MatchString(word) {
			out = fmt.Appendf(out, "%s\n", word)
		}
	}
	return out
}

// configuration returns a network configuration without what may be a secret.
func configuration(text []byte) []byte {
	var object any
	if err := json.Unmarshal(text, &object); err != nil {
		return fmt.Appendf(nil, "not JSON: %v\n", err)
	}
	clean, err := json.MarshalIndent(withoutSecrets(object), "", "  ")
	if err != nil {
		return fmt.Appendf(nil, "%v\n", err)
	}
	return append(clean, '\n')
}

func withoutSecrets(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			if v[name] = withoutSecrets(v[name]); secretName.MatchString(name) {
				v[name] = redacted
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutSecrets(v[i])
		}
	}
	return value
}

// The bounds of a log in a bundle.
const (
	logLines = 1000
	logBytes = 1 << 20
)

var (
	containerID = regexp.MustCompile(`[0-9a-f]{64}`)
	serviceUnit = regexp.MustCompile(`/([^/\s]+\.service)`)
)

// log returns the end of the daemon's log: of its container's file, or of its unit.
// Without a daemon the last container or unit of the usual name is taken.
func (p process) log(ctx context.Context, containers string) []byte {
	cgroup, _ := os.ReadFile(filepath.Join("/proc", fmt.Sprint(p.pid), "cgroup"))
	pattern, unit := "kube-flannel*.log", "flanneld"
	if id := containerID.Find(cgroup); id != nil {
		pattern, unit = "*"+string(id)+".log", ""
	} else if name := serviceUnit.FindSubmatch(cgroup); name != nil {
		pattern, unit = "", string(name[1])
	}
	if pattern != "" {
		if file := newest(filepath.Join(containers, pattern)); file != "" {
			return lastLines(file)
		}
	}
	if _, err := exec.LookPath("journalctl"); err == nil && unit != "" {
		return output(ctx, fmt.Sprintf("journalctl --no-pager -n %d -u %s", logLines, unit))
	}
	return []byte("the daemon's log cannot be read here; on the host: journalctl -u flanneld, or kubectl -n kube-flannel logs POD\n")
}

// newest returns the file of a pattern that was written last; empty if there is none.
func newest(pattern string) string {
	files, _ := filepath.Glob(pattern)
	var last string
	var written int64
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.ModTime().UnixNano() > written {
			last, written = file, info.ModTime().UnixNano()
		}
	}
	return last
}

// lastLines reads the end of a file.
func lastLines(file string) []byte {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Appendf(nil, "%v\n", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Appendf(nil, "%v\n", err)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-logBytes), logBytes))
	if err != nil {
		return fmt.Appendf(text, "%v\n", err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-1-logLines):], nil)
}
