package network

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"flannel/internal/health"
)

func TestASubnetFileThatIsTakenAwayAgainAndAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	n := New(Options{SubnetFile: path, Health: health.New(nil)})
	l := &passState{Network: n, subnetFileWritten: true}
	now := time.Now()
	restored := 0
	for range 10 * time.Minute / subnetFileEvery {
		now = now.Add(subnetFileEvery)
		if l.subnetFileDue(now) {
			restored++
		}
	}
	if restored < 15 || restored > 40 {
		t.Errorf("restored %d times in 10 minutes, want about every 30 s", restored)
	}

	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l.subnetFile, _ = os.Lstat(path)
	now = now.Add(time.Minute)
	if l.subnetFileDue(now) {
		t.Error("a file that is as it was written is restored")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if now = now.Add(subnetFileEvery); !l.subnetFileDue(now) {
		t.Error("after a quiet time it is not restored at once")
	}
}
