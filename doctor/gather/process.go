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
	// userInfo is the part of a URL that may hold a password, which may have an @ too.
	userInfo = regexp.MustCompile(`://[^/\s"]+@`)
	// proxyName is that of a variable with the address of a proxy, which needs no scheme.
	proxyName = regexp.MustCompile(`(?i)_proxy$`)
	// ourVariables are the only ones of the environment that a bundle has.
	ourVariables = regexp.MustCompile(`^(FLANNELD_|NODE_NAME=|POD_NAME|KUBERNETES_SERVICE_|(?i:https?_proxy|no_proxy)=)`)
	anyVariable  = regexp.MustCompile(`=`)
)

// setting is a word of the command line or of the environment. secret is the part of it
// that must not be shown.
type setting struct{ before, secret, after string }

// newSetting finds the secret of a value. before is what is ahead of it in its word.
func newSetting(name, before, value string) setting {
	if secretName.MatchString(name) {
		return setting{before: before, secret: value}
	}
	start := 0
	scheme := strings.Index(value, "://")
	if scheme >= 0 {
		start = scheme + len("://")
	}
	end := strings.LastIndex(value, "@")
	if end <= start || scheme < 0 && !proxyName.MatchString(name) && !strings.Contains(value[:end], ":") {
		return setting{before: before + value}
	}
	return setting{before + value[:start], value[start:end], value[end:]}
}

func (s setting) String() string {
	if s.secret == "" {
		return s.before + s.after
	}
	return s.before + redacted + s.after
}

// flags are the words of the command line. The value of a flag may be the next word.
func (p process) flags() []setting {
	var out []setting
	last := ""
	for _, word := range p.args {
		name, value, assigned := strings.Cut(word, "=")
		switch flag := strings.HasPrefix(word, "-"); {
		case flag && assigned && !secretName.MatchString(last):
			out, last = append(out, newSetting(name, name+"=", value)), ""
		case flag && !secretName.MatchString(last):
			out, last = append(out, setting{before: word}), word
		default:
			out, last = append(out, newSetting(last, "", word)), ""
		}
	}
	return out
}

// variables are those of the environment that match a pattern.
func (p process) variables(wanted *regexp.Regexp) []setting {
	var out []setting
	for _, word := range p.environ {
		if name, value, _ := strings.Cut(word, "="); wanted.MatchString(word) {
			out = append(out, newSetting(name, name+"=", value))
		}
	}
	return out
}

// shortest is the length from which on a secret is looked for everywhere: a shorter one,
// such as the number of a port, would be found in words that have nothing to do with it.
const shortest = 6

// secrets are the values on the command line and in the environment of the daemon that
// must not be shown, wherever they appear.
func (p process) secrets() []string {
	var out []string
	for _, s := range slices.Concat(p.flags(), p.variables(anyVariable)) {
		if len(s.secret) >= shortest {
			out = append(out, s.secret)
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
	for _, s := range slices.Concat(p.flags(), p.variables(ourVariables)) {
		out = fmt.Appendf(out, "%s\n", s)
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
