// Package dist tests the files that a distribution installs.
package dist

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flannel/lab"
)

const mkDockerOpts = "../../dist/mk-docker-opts.sh"

// programs do the same: the script, in shells that some distribution has, and
// the daemon by the name of the script, as in the image.
func programs(t *testing.T) map[string][]string {
	t.Helper()
	dir, err := daemon()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]string{
		"dash":    {"dash", mkDockerOpts},
		"busybox": {"busybox", "sh", mkDockerOpts},
		"image":   {filepath.Join(dir, "mk-docker-opts.sh")},
	}
}

// daemon builds flanneld, with a link to it that has the name of the script.
var daemon = sync.OnceValues(func() (string, error) {
	dir, err := lab.BuildStatic("flannel/cmd/flanneld")
	if err != nil {
		return "", err
	}
	return dir, os.Symlink("flanneld", filepath.Join(dir, "mk-docker-opts.sh"))
})

const subnetEnv = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"

const (
	individual = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\nDOCKER_OPT_MTU=\"--mtu=1472\"\n"
	combined   = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n"
)

// eachProgram runs a test with every program.
func eachProgram(t *testing.T, test func(t *testing.T, run func(dir string, environ []string, args ...string) error)) {
	for name, command := range programs(t) {
		t.Run(name, func(t *testing.T) {
			test(t, func(dir string, environ []string, args ...string) error {
				args = append(append(command[1:len(command):len(command)],
					"-f", filepath.Join(dir, "subnet.env"), "-d", filepath.Join(dir, "opts")), args...)
				cmd := exec.Command(command[0], args...)
				cmd.Env = append(os.Environ(), environ...)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				if err := cmd.Run(); err != nil {
					return errors.New(err.Error() + ": " + stderr.String())
				}
				return nil
			})
		})
	}
}

func TestMkDockerOpts(t *testing.T) {
	tests := []struct {
		name, env string
		environ   []string
		args      []string
		want      string
	}{
		{"both forms", subnetEnv, nil, nil, individual + combined},
		{"individual", subnetEnv, nil, []string{"-i"}, individual},
		{"combined", subnetEnv, nil, []string{"-c"}, combined},
		{"both asked for", subnetEnv, nil, []string{"-i", "-c"}, individual + combined},
		{"another key", subnetEnv, nil, []string{"-c", "-k", "OPTIONS"}, strings.Replace(combined, "DOCKER_OPTS", "OPTIONS", 1)},
		{"no masquerading", subnetEnv, nil, []string{"-m"},
			"DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1472\"\nDOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n"},
		{"flannel masquerades", strings.Replace(subnetEnv, "false", "true", 1), nil, []string{"-c"}, strings.Replace(combined, "true", "false", 1)},
		{"a value to keep", subnetEnv, []string{"DOCKER_OPTS=--debug"}, []string{"-c"}, strings.Replace(combined, "=\"", "=\"--debug", 1)},
		{"a value with quotes", subnetEnv, []string{"K=--a=\"x y\" `$\\ $(id)"}, []string{"-c", "-k", "K"},
			"K=\"--a=\\\"x y\\\" \\`\\$\\\\ \\$(id) --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n"},
		{"no newline at the end", strings.TrimSuffix(subnetEnv, "\n"), nil, []string{"-i"}, individual},
		{"only the subnet", "FLANNEL_SUBNET=10.1.74.1/24\n", nil, []string{"-c"}, "DOCKER_OPTS=\" --bip=10.1.74.1/24\"\n"},
		{"dual stack", subnetEnv + "FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::1/64\n", nil, nil, individual + combined},
	}
	eachProgram(t, func(t *testing.T, run func(string, []string, ...string) error) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				dir := t.TempDir()
				write(t, filepath.Join(dir, "subnet.env"), test.env)
				write(t, filepath.Join(dir, "opts"), "old")
				if err := run(dir, test.environ, test.args...); err != nil {
					t.Fatal(err)
				}
				if got := read(t, filepath.Join(dir, "opts")); got != test.want {
					t.Errorf("got\n%swant\n%s", got, test.want)
				}
			})
		}
	})
}

func TestMkDockerOptsErrors(t *testing.T) {
	tests := []struct {
		name, env string
		args      []string
		want      string
	}{
		{"no file", "", nil, "flanneld writes it once it has a subnet"},
		{"no subnet", "FLANNEL_IPV6_SUBNET=fd00::1/64\nFLANNEL_MTU=1450\n", nil, "has no FLANNEL_SUBNET"},
		{"a bad masquerading", strings.Replace(subnetEnv, "false", "no", 1), nil, "use true or false"},
		{"a bad masquerading that is not asked for", strings.Replace(subnetEnv, "false", "", 1), []string{"-m"}, "use true or false"},
		{"code in the subnet", strings.Replace(subnetEnv, "10.1.74.1/24", "$(id)", 1), nil, "is not an IPv4 subnet"},
		{"code in the MTU", strings.Replace(subnetEnv, "1472", "`id`", 1), nil, "is not a number"},
		{"code in the key", subnetEnv, []string{"-k", "a b"}, "use a name of letters"},
		{"an unknown option", subnetEnv, []string{"-x"}, "Usage"},
		{"a stray word", subnetEnv, []string{"x"}, "Usage"},
	}
	eachProgram(t, func(t *testing.T, run func(string, []string, ...string) error) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				dir := t.TempDir()
				if test.env != "" {
					write(t, filepath.Join(dir, "subnet.env"), test.env)
				}
				err := run(dir, nil, test.args...)
				if err == nil || !strings.HasPrefix(err.Error(), "exit status 1: ") || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want exit status 1 and %q", err, test.want)
				}
				if _, err := os.Stat(filepath.Join(dir, "opts")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got %v, want no file of options", err)
				}
			})
		}
	})
}

func TestMkDockerOptsWritesThroughALink(t *testing.T) {
	eachProgram(t, func(t *testing.T, run func(string, []string, ...string) error) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "subnet.env"), subnetEnv)
		if err := os.Symlink("target", filepath.Join(dir, "opts")); err != nil {
			t.Fatal(err)
		}
		if err := run(dir, nil, "-c"); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(dir, "target")); got != combined {
			t.Errorf("got %q, want %q", got, combined)
		}
	})
}

// TestMkDockerOptsSaysTheSame compares, byte by byte, what the script and the
// program in the image print and write.
func TestMkDockerOptsSaysTheSame(t *testing.T) {
	all := programs(t)
	for name, test := range map[string]struct {
		env  string
		args []string
	}{
		"help":                   {"", []string{"-h"}},
		"help after others":      {"", []string{"-ih"}},
		"options that share":     {subnetEnv, []string{"-mick", "OPTIONS"}},
		"a value without blank":  {subnetEnv, []string{"-ckOPTIONS", "--"}},
		"to the standard output": {subnetEnv, []string{"-d", "/dev/stdout"}},
		"a kept value":           {subnetEnv, []string{"-c", "-k", "KEPT"}},
		"no equals sign":         {subnetEnv + "FLANNEL_MTU\n", nil},
		"two values":             {subnetEnv + "FLANNEL_MTU=1400\n\n#\n =\n", nil},
		"no file":                {"", nil},
		"no subnet":              {"FLANNEL_MTU=1450\n", nil},
		"a bad subnet":           {strings.Replace(subnetEnv, "10.1", "fd00::", 1), nil},
		"a bad MTU":              {strings.Replace(subnetEnv, "1472", "1472 ", 1), nil},
		"a bad masquerading":     {strings.Replace(subnetEnv, "false", "False\r", 1), nil},
		"a bad key":              {subnetEnv, []string{"-k", ""}},
		"a key with a digit":     {subnetEnv, []string{"-k", "0x"}},
	} {
		t.Run(name, func(t *testing.T) {
			outcome := func(command []string) string {
				dir := t.TempDir()
				file, opts := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "opts")
				if test.env != "" {
					write(t, file, test.env)
				}
				cmd := exec.Command(command[0], append(append(command[1:len(command):len(command)], "-f", file, "-d", opts), test.args...)...)
				cmd.Env = append(os.Environ(), "KEPT=a\"b\\c\n$d `e`\n\n")
				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := cmd.Run()
				written, _ := os.ReadFile(opts)
				text := fmt.Sprintf("%v\n%s\n%s\n%s", err, &stdout, &stderr, written)
				return strings.NewReplacer(command[len(command)-1], "PROGRAM", dir, "DIR").Replace(text)
			}
			if got, want := outcome(all["image"]), outcome(all["dash"]); got != want {
				t.Errorf("the image:\n%s\nthe script:\n%s", got, want)
			}
		})
	}
}

func TestScriptsAreCleanForShellcheck(t *testing.T) {
	scripts, err := filepath.Glob("../../dist/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range append(scripts, "../../dist/iptables/fetch") {
		args := []string{script}
		if strings.HasSuffix(script, ".sh") {
			args = []string{"-s", "sh", script}
		}
		if out, err := exec.Command("shellcheck", args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
