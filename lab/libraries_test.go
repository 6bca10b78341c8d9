package lab

import (
	"strings"
	"testing"
)

func TestAProgramOfThisMachineComesWithItsLibraries(t *testing.T) {
	files, err := WithLibraries(map[string]string{"/bin/sh": "/bin/sh", "/bin/again": "/bin/sh"})
	if err != nil {
		t.Fatal(err)
	}
	programs, libraries := 0, 0
	for _, f := range files {
		if strings.HasPrefix(f.Path, "/bin/") {
			programs++
		}
		if strings.Contains(f.Path, "/libc.so") {
			libraries++
		}
	}
	if programs != 2 || libraries != 1 {
		t.Errorf("%d programs and %d C libraries, want 2 and 1", programs, libraries)
	}
}
