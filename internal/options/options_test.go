package options_test

import (
	"strings"
	"testing"

	"flannel/internal/options"
)

func TestTheLastOfTwoKeysCounts(t *testing.T) {
	for range 50 {
		o, err := options.Parse([]byte(`{"vni": 1, "VNI": 2, "Port": 5, "port": null}`))
		if err != nil {
			t.Fatal(err)
		}
		var vni int
		port := 7
		o.Int("VNI", &vni, 1, 9)
		o.Int("Port", &port, 1, 9)
		if vni != 2 || port != 7 || o.Err() != nil {
			t.Fatalf("got VNI %d, port %d, %v", vni, port, o.Err())
		}
	}
}

func TestWhatIsNoObjectIsNamed(t *testing.T) {
	for _, text := range []string{`[]`, `"x"`, `{`, `{"a": }`, `7`} {
		if _, err := options.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "not a JSON object") {
			t.Errorf("%s: got %v", text, err)
		}
	}
	for _, text := range []string{``, ` `, `null`, `{}`} {
		if _, err := options.Parse([]byte(text)); err != nil {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
