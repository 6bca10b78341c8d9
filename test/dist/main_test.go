package dist

import (
	"testing"

	"flannel/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
