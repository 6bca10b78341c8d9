package sbom

import (
	"fmt"
	"slices"

	"github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
)

// statement is an in-toto statement with SLSA provenance.
type statement struct {
	Type          string                    `json:"_type"`
	Subject       []slsa.ResourceDescriptor `json:"subject"`
	PredicateType string                    `json:"predicateType"`
	Predicate     slsa.ProvenancePredicate  `json:"predicate"`
}

// buildType says that the Go toolchain made the programs from one module.
const buildType = "https://go.dev/ref/mod#go-build"

// Provenance says from which commit, with which Go and settings, and from which
// modules the programs were built, and which packages are beside them. It is not
// signed.
func Provenance(programs []Program, packages ...Package) (string, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: slsa.PredicateSLSAProvenance}
	s.Predicate.RunDetails.Builder.ID = buildType
	parameters := map[string]string{}
	for _, p := range programs {
		s.Subject = append(s.Subject, slsa.ResourceDescriptor{Name: p.Name, Digest: common.DigestSet{"sha256": p.SHA256}})
		parameters["version"], parameters["go"] = p.Version, p.info.GoVersion
		for _, setting := range p.info.Settings {
			parameters[setting.Key] = setting.Value
		}
	}
	dependencies := append(sources(programs), modulesUsed(programs)...)
	for _, p := range packages {
		dependencies = append(dependencies, slsa.ResourceDescriptor{URI: p.PURL, Digest: common.DigestSet{"sha256": p.SHA256}})
	}
	s.Predicate.BuildDefinition = slsa.ProvenanceBuildDefinition{
		BuildType: buildType, ExternalParameters: parameters, ResolvedDependencies: dependencies,
	}
	text, err := encode(s)
	if err != nil {
		return "", fmt.Errorf("write provenance: %w", err)
	}
	return text, nil
}

// sources are the commits that the programs were built from, one as a rule.
func sources(programs []Program) []slsa.ResourceDescriptor {
	var all []slsa.ResourceDescriptor
	for _, p := range programs {
		commit := p.Setting("vcs.revision")
		seen := slices.ContainsFunc(all, func(d slsa.ResourceDescriptor) bool { return d.Digest["gitCommit"] == commit })
		if commit != "" && !seen {
			all = append(all, slsa.ResourceDescriptor{URI: "git+" + p.info.Main.Path, Digest: common.DigestSet{"gitCommit": commit}})
		}
	}
	return all
}

// modulesUsed are the modules; their digests are those of go.sum.
func modulesUsed(programs []Program) []slsa.ResourceDescriptor {
	var all []slsa.ResourceDescriptor
	for _, m := range modules(programs) {
		d := slsa.ResourceDescriptor{URI: purl(m)}
		if m.Sum != "" {
			d.Digest = common.DigestSet{"dirHash1": m.Sum}
		}
		all = append(all, d)
	}
	return all
}
