package sbom

import (
	"fmt"
	"slices"
)

// statement is an in-toto statement (https://in-toto.io/Statement/v1) with SLSA
// provenance (https://slsa.dev/provenance/v1). The libraries for both are either
// deprecated or write JSON that differs from run to run.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     predicate  `json:"predicate"`
}

// resource is a file or a module, with digests by the name of their algorithm.
type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// predicate describes what was built from what, and by whom.
type predicate struct {
	BuildDefinition buildDefinition `json:"buildDefinition"`
	RunDetails      struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

type buildDefinition struct {
	BuildType            string            `json:"buildType"`
	ExternalParameters   map[string]string `json:"externalParameters"`
	ResolvedDependencies []resource        `json:"resolvedDependencies"`
}

// buildType means that the Go toolchain made the programs from one module.
const buildType = "https://go.dev/ref/mod#go-build"

// Provenance records from which commit, with which Go and settings, and from which
// modules the programs were built, and which packages are beside them. It is not
// signed.
func Provenance(programs []Program, packages ...Package) (string, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	s.Predicate.RunDetails.Builder.ID = buildType
	parameters := map[string]string{}
	for _, p := range programs {
		s.Subject = append(s.Subject, resource{Name: p.Name, Digest: map[string]string{"sha256": p.SHA256}})
		parameters["version"], parameters["go"] = p.Version, p.info.GoVersion
		for _, setting := range p.info.Settings {
			parameters[setting.Key] = setting.Value
		}
	}
	dependencies := append(sources(programs), modulesUsed(programs)...)
	for _, p := range packages {
		dependencies = append(dependencies, resource{URI: p.PURL, Digest: map[string]string{"sha256": p.SHA256}})
	}
	s.Predicate.BuildDefinition = buildDefinition{
		BuildType: buildType, ExternalParameters: parameters, ResolvedDependencies: dependencies,
	}
	text, err := encode(s)
	if err != nil {
		return "", fmt.Errorf("write provenance: %w", err)
	}
	return text, nil
}

// sources are the commits that the programs were built from, one as a rule.
func sources(programs []Program) []resource {
	var all []resource
	for _, p := range programs {
		commit := p.Setting("vcs.revision")
		seen := slices.ContainsFunc(all, func(d resource) bool { return d.Digest["gitCommit"] == commit })
		if commit != "" && !seen {
			all = append(all, resource{URI: "git+" + p.info.Main.Path, Digest: map[string]string{"gitCommit": commit}})
		}
	}
	return all
}

// modulesUsed are the modules; their digests are those of go.sum.
func modulesUsed(programs []Program) []resource {
	var all []resource
	for _, m := range modules(programs) {
		d := resource{URI: purl(m)}
		if m.Sum != "" {
			d.Digest = map[string]string{"dirHash1": m.Sum}
		}
		all = append(all, d)
	}
	return all
}
