package logonce

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailuresLogStartChangeAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		f := NewFailures(log, slog.LevelWarn)
		f.OK("watch")
		for _, text := range []string{"refused", "refused", "refused", "timeout", "timeout"} {
			f.Fail("watch", errors.New(text))
			time.Sleep(time.Second)
		}
		f.Fail("list", errors.New("refused"))
		f.OK("watch")
		f.Fail("list", nil)
		f.OK("watch")
		var got []string
		for line := range strings.Lines(out.String()) {
			_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			got = append(got, rest)
		}
		want := []string{
			`level=WARN msg="watch failed, retrying" err=refused`,
			`level=WARN msg="watch failed, retrying" err=timeout`,
			`level=WARN msg="list failed, retrying" err=refused`,
			`level=INFO msg="watch works again" after=5s`,
			`level=INFO msg="list works again" after=0s`,
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// varying is an error whose text has more than its cause.
type varying struct{ text, cause string }

func (e varying) Error() string { return e.text }
func (e varying) Cause() string { return e.cause }

func TestFailuresWithTheSameCauseAreOne(t *testing.T) {
	var out bytes.Buffer
	words := Words{Level: slog.LevelError, Begins: "down", Ends: "up"}
	f := words.NewFailures(slog.New(slog.NewTextHandler(&out, nil)))
	for i, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{varying{"a: refused", "refused"}, true},
		{fmt.Errorf("list: %w", varying{"b: refused", "refused"}), false},
		{varying{"b: timeout", "timeout"}, true},
		{nil, true},
		{nil, false},
	} {
		if got := f.Fail("store", test.err); got != test.want {
			t.Errorf("%d: %v: got %t, want %t", i, test.err, got, test.want)
		}
		if _, err := f.Cause("store"); (err != nil) != (test.err != nil) {
			t.Errorf("%d: %v: the cause is %v", i, test.err, err)
		}
	}
	if got := out.String(); strings.Count(got, "level=ERROR msg=down err=") != 2 || strings.Count(got, "level=INFO msg=up after=") != 1 {
		t.Errorf("got\n%s", got)
	}
}

func TestLastReportsChanges(t *testing.T) {
	var l Last[string]
	for i, test := range []struct {
		value string
		want  bool
	}{{"", false}, {"a", true}, {"a", false}, {"b", true}, {"", true}, {"b", true}} {
		if got := l.Changed(test.value); got != test.want {
			t.Errorf("%d: %q: got %t, want %t", i, test.value, got, test.want)
		}
	}
}

func TestASetIsBounded(t *testing.T) {
	s := NewSet[int](2)
	for i, test := range []struct {
		item int
		want bool
	}{{1, true}, {1, false}, {2, true}, {3, false}, {2, false}} {
		if got := s.First(test.item); got != test.want {
			t.Errorf("%d: %d: got %t, want %t", i, test.item, got, test.want)
		}
	}
}
