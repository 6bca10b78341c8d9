package image

// Where the programs are inside our image.
const (
	Flanneld    = "/opt/bin/flanneld"
	Plugin      = "/opt/bin/flannel"
	InstallConf = "/opt/bin/install-conf"
)

// Programs are the files of our image, made from the two programs: the daemon
// answers to the name install-conf as well.
func Programs(flanneld, plugin string) []File {
	return []File{
		{Path: Flanneld, Source: flanneld, Mode: 0o755},
		{Path: Plugin, Source: plugin, Mode: 0o755},
		{Path: InstallConf, Link: "flanneld"},
	}
}
