package gather

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// wrongChecksums reads how many TCP segments this network namespace has got with a
// wrong checksum. The file has two lines for each protocol, names and values.
func wrongChecksums() (uint64, error) {
	const file, counter = "/proc/thread-self/net/snmp", "InCsumErrors"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch i := slices.Index(names, counter); {
		case len(fields) == 0 || fields[0] != "Tcp:":
		case names == nil:
			names = fields
		case i > 0 && i < len(fields):
			return strconv.ParseUint(fields[i], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not count %s", file, counter)
}
