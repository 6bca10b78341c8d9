package gather

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"flannel/doctor"
)

// commands are run for a bundle. None prints a key, a token or a password: those of
// wireguard and ipsec are not asked for, nor are command lines of other processes.
var commands = []string{
	"ip -details link", "ip address", "ip -4 route show table all", "ip -6 route show table all",
	"ip -4 rule", "ip -6 rule", "ip neigh", "bridge fdb", "nft list ruleset",
	"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save", "ss -ulnp", "uname -a",
}

// pages of the daemon are in a bundle. It writes no secrets there.
var pages = []string{"/readyz", "/status", "/metrics"}

// maxOutput bounds each part of a bundle.
const maxOutput = 16 << 20

// Bundle packs what an issue report needs. Only what is known to hold no secrets is
// taken: of network configurations of the runtime names and types, not their text. The
// daemon's own passwords are taken out everywhere.
func Bundle(ctx context.Context, path string, o Options, r doctor.Report) (err error) {
	// What is there may be somebody's link to another file.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("it exists already: remove it, or name another file")
	}
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(path)
		}
	}()
	packed := gzip.NewWriter(f)
	out := tar.NewWriter(packed)
	daemon := o.process()
	secrets := daemon.secrets()
	add := func(name string, text []byte) {
		text = hide(text[:min(len(text), maxOutput)], secrets)
		err = errors.Join(err, out.WriteHeader(&tar.Header{Name: "flannel-doctor/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}))
		_, failed := out.Write(text)
		err = errors.Join(err, failed)
	}
	var report, text bytes.Buffer
	err = r.WriteJSON(&report)
	r.WriteText(&text, true)
	add("report.json", report.Bytes())
	add("report.txt", text.Bytes())
	for _, command := range commands {
		add(strings.ReplaceAll(command, " ", "_")+".txt", output(ctx, command))
	}
	at, _ := o.asked()
	for _, page := range pages {
		body, failed := ask(ctx, at, http.MethodGet, page)
		if failed != nil {
			body = []byte(failed.Error() + "\n")
		}
		add("daemon"+strings.ReplaceAll(page, "/", "_")+".txt", body)
	}
	for _, file := range []string{o.SubnetFile, "/etc/os-release"} {
		if content, failed := os.ReadFile(file); failed == nil {
			add(filepath.Base(file), content)
		}
	}
	add("cni.txt", configurations(o.CNIConfDir))
	add("daemon_command.txt", daemon.commandLine())
	add("daemon_log.txt", daemon.log(ctx, o.Logs))
	if text, failed := o.netConf(daemon); failed == nil {
		add("net-conf.json", configuration(text))
	}
	return errors.Join(err, out.Close(), packed.Close())
}

// netConf reads the network configuration of a daemon that has it in a file.
func (o Options) netConf(daemon process) ([]byte, error) {
	if o.Access == nil || len(daemon.args) == 0 {
		return nil, fs.ErrNotExist
	}
	a, err := o.Access(daemon.args[1:], daemon.environ)
	if a.Config == "" {
		return nil, cmp.Or(err, fs.ErrNotExist)
	}
	return os.ReadFile(daemon.file(a.Config))
}

// output runs a command and returns what it prints, or why it does not.
func output(ctx context.Context, command string) []byte {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	words := strings.Fields(command)
	text, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil {
		text = fmt.Appendf(text, "%v\n", err)
	}
	return text
}

// configurations describes the runtime's network configurations. Those of some
// plugins hold credentials.
func configurations(dir string) []byte {
	var out []byte
	for _, name := range cniConfs(dir) {
		var conf struct {
			Name, Type, CNIVersion string
			Plugins                []struct{ Type string }
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(text, &conf)
		}
		if err != nil {
			out = fmt.Appendf(out, "%s: cannot be read\n", name)
			continue
		}
		out = fmt.Appendf(out, "%s: name %q version %q type %q plugins %q\n", name, conf.Name, conf.CNIVersion, conf.Type, conf.Plugins)
	}
	return out
}
