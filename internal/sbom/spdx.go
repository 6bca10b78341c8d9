package sbom

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The part of SPDX 2.3 that is used.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		License       string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		Name          string          `json:"name"`
		ID            string          `json:"SPDXID"`
		Version       string          `json:"versionInfo"`
		Download      string          `json:"downloadLocation"`
		FilesAnalyzed bool            `json:"filesAnalyzed"`
		Declared      string          `json:"licenseDeclared"`
		Checksums     []spdxChecksum  `json:"checksums,omitempty"`
		References    []spdxReference `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

const (
	documentID  = "SPDXRef-DOCUMENT"
	noAssertion = "NOASSERTION"
)

// SPDX lists the programs, the modules in them, the Go that built them, and the
// packages beside them.
func SPDX(name string, programs []Program, packages ...Package) (string, error) {
	d := spdxDocument{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: documentID, Name: name,
		Namespace: "https://spdx.org/spdxdocs/" + name,
		Creation: spdxCreation{
			Created:  time.Unix(0, 0).UTC().Format(time.RFC3339),
			Creators: []string{"Tool: flannel-pack"},
		},
	}
	for _, p := range programs {
		d.Namespace += "-" + p.SHA256[:16]
		d.Creation.Created = p.Committed().Format(time.RFC3339)
		pkg := newPackage(p.Name, p.Version, "pkg:generic/"+p.Name+"@"+p.Version)
		pkg.Declared = "Apache-2.0"
		pkg.Checksums = []spdxChecksum{{"SHA256", p.SHA256}}
		d.Packages = append(d.Packages, pkg)
		d.Relationships = append(d.Relationships, spdxRelationship{documentID, "DESCRIBES", pkg.ID})
	}
	d.addModules(programs)
	for _, p := range packages {
		pkg := newPackage(p.Name, p.Version, p.PURL)
		pkg.Checksums = []spdxChecksum{{"SHA256", p.SHA256}}
		d.Packages = append(d.Packages, pkg)
		d.Relationships = append(d.Relationships, spdxRelationship{documentID, "DESCRIBES", pkg.ID})
	}
	text, err := encode(d)
	if err != nil {
		return "", fmt.Errorf("write SBOM: %w", err)
	}
	return text, nil
}

func (d *spdxDocument) addModules(programs []Program) {
	for _, m := range modules(programs) {
		d.Packages = append(d.Packages, newPackage(m.Path, m.Version, purl(m)))
	}
	for _, p := range programs {
		stdlib := strings.TrimPrefix(p.info.GoVersion, "go")
		id := packageID("stdlib", stdlib)
		if !d.has(id) {
			d.Packages = append(d.Packages, newPackage("stdlib", stdlib, "pkg:golang/stdlib@"+stdlib))
		}
		from := packageID(p.Name, p.Version)
		d.Relationships = append(d.Relationships, spdxRelationship{from, "DEPENDS_ON", id})
		for _, m := range modules([]Program{p}) {
			d.Relationships = append(d.Relationships, spdxRelationship{from, "DEPENDS_ON", packageID(m.Path, m.Version)})
		}
	}
}

func (d *spdxDocument) has(id string) bool {
	for _, p := range d.Packages {
		if p.ID == id {
			return true
		}
	}
	return false
}

func newPackage(name, version, purl string) spdxPackage {
	return spdxPackage{
		Name: name, ID: packageID(name, version), Version: version,
		Download: noAssertion, Declared: noAssertion,
		References: []spdxReference{{"PACKAGE-MANAGER", "purl", purl}},
	}
}

// notAllowed are the characters that an SPDX identifier must not have.
var notAllowed = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func packageID(name, version string) string {
	return "SPDXRef-Package-" + notAllowed.ReplaceAllString(name+"-"+version, "-")
}
