package sbom

import (
	"fmt"
	"slices"
)

// The part of an in-toto statement with SLSA provenance that is used.
type (
	statement struct {
		Type          string    `json:"_type"`
		Subject       []subject `json:"subject"`
		PredicateType string    `json:"predicateType"`
		Predicate     predicate `json:"predicate"`
	}
	subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	predicate struct {
		Definition definition `json:"buildDefinition"`
		Run        run        `json:"runDetails"`
	}
	definition struct {
		Type         string            `json:"buildType"`
		Parameters   map[string]string `json:"externalParameters"`
		Dependencies []dependency      `json:"resolvedDependencies"`
	}
	dependency struct {
		URI    string            `json:"uri"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	run struct {
		Builder builder `json:"builder"`
	}
	builder struct {
		ID string `json:"id"`
	}
)

// buildType says that the Go toolchain made the programs from one module.
const buildType = "https://go.dev/ref/mod#go-build"

// Provenance says from which commit, with which Go and settings, and from which
// modules the programs were built, and which packages are beside them. It is not
// signed.
func Provenance(programs []Program, packages ...Package) (string, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	s.Predicate.Run.Builder.ID = buildType
	s.Predicate.Definition = definition{Type: buildType, Parameters: map[string]string{}}
	for _, p := range programs {
		s.Subject = append(s.Subject, subject{p.Name, map[string]string{"sha256": p.SHA256}})
		s.Predicate.Definition.describe(p)
	}
	s.Predicate.Definition.Dependencies = append(sources(programs), modulesUsed(programs)...)
	for _, p := range packages {
		s.Predicate.Definition.Dependencies = append(s.Predicate.Definition.Dependencies, dependency{p.PURL, map[string]string{"sha256": p.SHA256}})
	}
	text, err := encode(s)
	if err != nil {
		return "", fmt.Errorf("write provenance: %w", err)
	}
	return text, nil
}

func (d *definition) describe(p Program) {
	d.Parameters["version"], d.Parameters["go"] = p.Version, p.info.GoVersion
	for _, s := range p.info.Settings {
		d.Parameters[s.Key] = s.Value
	}
}

// sources are the commits that the programs were built from, one as a rule.
func sources(programs []Program) []dependency {
	var all []dependency
	for _, p := range programs {
		commit := p.Setting("vcs.revision")
		seen := slices.ContainsFunc(all, func(d dependency) bool { return d.Digest["gitCommit"] == commit })
		if commit != "" && !seen {
			all = append(all, dependency{"git+" + p.info.Main.Path, map[string]string{"gitCommit": commit}})
		}
	}
	return all
}

// modulesUsed are the modules; their digests are those of go.sum.
func modulesUsed(programs []Program) []dependency {
	var all []dependency
	for _, m := range modules(programs) {
		d := dependency{URI: purl(m)}
		if m.Sum != "" {
			d.Digest = map[string]string{"dirHash1": m.Sum}
		}
		all = append(all, d)
	}
	return all
}
