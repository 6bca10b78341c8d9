// Package dockeropts turns flannel's subnet.env into options for the Docker
// daemon. It replaces dist/mk-docker-opts.sh in an image without a shell, with the
// same messages and files.
package dockeropts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"flannel/internal/atomicfile"
)

// Name is that of the script, and of a program that is one.
const Name = "mk-docker-opts.sh"

const usage = `Usage: %s [-f FILE] [-d FILE] [-i] [-c] [-k KEY] [-m]

Writes options for the Docker daemon that fit this node's subnet.

  -f FILE  read flannel's subnet.env from FILE (/run/flannel/subnet.env)
  -d FILE  write the options to FILE (/run/docker_opts.env)
  -i       write one variable per option
  -c       write one variable with all options; without -i and -c, both
  -k KEY   name of the variable with all options (DOCKER_OPTS); a value that it
           has in the environment is kept in front
  -m       leave masquerading out
`

// options are those of the command line.
type options struct {
	subnetFile, optionsFile, key           string
	individual, combined, noMasq, wantHelp bool
}

// Run is the program, called as argv; it returns the exit code.
func Run(argv []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(argv[1:])
	switch {
	case o.wantHelp:
		fmt.Fprintf(stdout, usage, argv[0])
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n"+usage, argv[0], err, argv[0])
		return 1
	}
	if err := run(o, getenv); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", argv[0], err)
		return 1
	}
	return 0
}

// parse reads options as getopts of a shell does: several may share a dash.
func parse(args []string) (options, error) {
	o := options{subnetFile: "/run/flannel/subnet.env", optionsFile: "/run/docker_opts.env", key: "DOCKER_OPTS"}
	values := map[byte]*string{'f': &o.subnetFile, 'd': &o.optionsFile, 'k': &o.key}
	flags := map[byte]*bool{'i': &o.individual, 'c': &o.combined, 'm': &o.noMasq, 'h': &o.wantHelp}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		group := args[0][1:]
		args = args[1:]
		if group == "-" {
			break
		}
		for ; group != ""; group = group[1:] {
			if flag := flags[group[0]]; flag != nil {
				*flag = true
				continue
			}
			value := values[group[0]]
			if value == nil {
				return o, fmt.Errorf("illegal option -%c", group[0])
			}
			if group[1:] == "" {
				if len(args) == 0 {
					return o, fmt.Errorf("option -%c needs a value", group[0])
				}
				group, args = group+args[0], args[1:]
			}
			*value = group[1:]
			break
		}
		if o.wantHelp {
			return o, nil
		}
	}
	if len(args) > 0 {
		return o, fmt.Errorf("argument %q is not an option", args[0])
	}
	if !o.individual && !o.combined {
		o.individual, o.combined = true, true
	}
	return o, nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func run(o options, getenv func(string) string) error {
	if !variable.MatchString(o.key) {
		return fmt.Errorf("-k %s: use a name of letters, digits and underscores", o.key)
	}
	if info, err := os.Stat(o.subnetFile); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s does not exist: flanneld writes it once it has a subnet; look at its log", o.subnetFile)
	}
	text, err := os.ReadFile(o.subnetFile)
	if err != nil {
		return err
	}
	docker, err := read(string(text))
	if err != nil {
		return fmt.Errorf("%s%w", o.subnetFile, err)
	}
	return write(o.optionsFile, o.format(docker, getenv(o.key)))
}

// option is one of the Docker daemon, and the name of its variable.
type option struct{ name, text string }

// read makes options of subnet.env. Its errors continue the name of the file.
func read(text string) ([]option, error) {
	values := map[string]string{"FLANNEL_IPMASQ": "none"}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[name] = value
	}
	subnet, mtu, masq := values["FLANNEL_SUBNET"], values["FLANNEL_MTU"], values["FLANNEL_IPMASQ"]
	switch {
	case subnet == "":
		return nil, errors.New(" has no FLANNEL_SUBNET: restart flanneld to have it written again")
	case strings.Trim(subnet, "0123456789./") != "":
		return nil, fmt.Errorf(": FLANNEL_SUBNET=%s is not an IPv4 subnet", subnet)
	case strings.Trim(mtu, "0123456789") != "":
		return nil, fmt.Errorf(": FLANNEL_MTU=%s is not a number", mtu)
	}
	docker := []option{{"BIP", "--bip=" + subnet}}
	switch masq {
	case "none":
	case "true":
		docker = append(docker, option{"IPMASQ", "--ip-masq=false"})
	case "false":
		docker = append(docker, option{"IPMASQ", "--ip-masq=true"})
	default:
		return nil, fmt.Errorf(": FLANNEL_IPMASQ=%s is not allowed: use true or false", masq)
	}
	if mtu != "" {
		docker = append(docker, option{"MTU", "--mtu=" + mtu})
	}
	return docker, nil
}

// quoted makes a text survive within double quotes, for systemd as well as for
// a shell.
var quoted = strings.NewReplacer(`"`, `\"`, `\`, `\\`, "$", `\$`, "`", "\\`")

// format writes the options in the forms that are asked for; kept is what the
// variable with all options has already.
func (o options) format(docker []option, kept string) []byte {
	var out bytes.Buffer
	all := quoted.Replace(strings.TrimRight(kept, "\n"))
	for _, d := range docker {
		if d.name == "IPMASQ" && o.noMasq {
			continue
		}
		if o.individual {
			fmt.Fprintf(&out, "DOCKER_OPT_%s=\"%s\"\n", d.name, d.text)
		}
		all += " " + d.text
	}
	if o.combined {
		fmt.Fprintf(&out, "%s=\"%s\"\n", o.key, all)
	}
	return out.Bytes()
}

// write replaces a file whole. A link or a device such as /dev/stdout is
// written through.
func write(path string, data []byte) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, data, 0o644)
	}
	return atomicfile.WriteVolatile(path, data, 0o644)
}
