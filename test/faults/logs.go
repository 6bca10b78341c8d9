package main

import (
	"fmt"
	"strings"
)

// logged is all that a program has written.
type logged struct{ name, text string }

func (s *suite) texts() (out []logged) {
	for _, h := range s.lab.Hosts {
		out = append(out, logged{h.Name, h.Log()})
	}
	out = append(out, logged{"etcd", s.lab.Etcd.Log()})
	if k := s.lab.Kubernetes; k != nil {
		out = append(out, logged{"the API server", k.Log()})
	}
	return out
}

// logs are the lengths of all logs.
func (s *suite) logs() (out []int) {
	for _, l := range s.texts() {
		out = append(out, len(l.text))
	}
	return out
}

// since returns what was logged since then.
func (s *suite) since(before []int) string {
	var b strings.Builder
	for i, l := range s.texts() {
		if len(l.text) > before[i] {
			fmt.Fprintf(&b, "log of %s:\n%s", l.name, l.text[before[i]:])
		}
	}
	return b.String()
}
