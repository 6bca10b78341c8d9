package dist

import (
	"testing"

	"flannel/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
