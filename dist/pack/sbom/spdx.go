package sbom

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

const noAssertion = "NOASSERTION"

// SPDX lists the programs, the modules in them, the Go that built them, and the
// packages beside them.
func SPDX(name string, programs []Program, packages ...Package) (string, error) {
	d := document{&spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: name, DocumentNamespace: "https://spdx.org/spdxdocs/" + name,
		CreationInfo: &spdx.CreationInfo{
			Created:  time.Unix(0, 0).UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "flannel-pack"}},
		},
	}}
	for _, p := range programs {
		d.spdx.DocumentNamespace += "-" + p.SHA256[:16]
		d.spdx.CreationInfo.Created = p.Committed().Format(time.RFC3339)
		pkg := d.describe(p.Name, p.Version, "pkg:generic/"+p.Name+"@"+p.Version, p.SHA256)
		pkg.PackageLicenseDeclared = "Apache-2.0"
		d.addModules(pkg.PackageSPDXIdentifier, p)
	}
	for _, p := range packages {
		d.describe(p.Name, p.Version, p.PURL, p.SHA256)
	}
	text, err := encode(d.spdx)
	if err != nil {
		return "", fmt.Errorf("write SBOM: %w", err)
	}
	return text, nil
}

type document struct{ spdx *spdx.Document }

// describe adds something that the document is about.
func (d document) describe(name, version, purl, sha256 string) *spdx.Package {
	pkg := d.add(name, version, purl)
	pkg.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: sha256}}
	d.relate(d.spdx.SPDXIdentifier, common.TypeRelationshipDescribe, pkg)
	return pkg
}

// addModules adds what a program is linked from.
func (d document) addModules(program common.ElementID, p Program) {
	stdlib := strings.TrimPrefix(p.info.GoVersion, "go")
	d.relate(program, common.TypeRelationshipDependsOn, d.add("stdlib", stdlib, "pkg:golang/stdlib@"+stdlib))
	for _, m := range modules([]Program{p}) {
		d.relate(program, common.TypeRelationshipDependsOn, d.add(m.Path, m.Version, purl(m)))
	}
}

func (d document) relate(from common.ElementID, kind string, to *spdx.Package) {
	d.spdx.Relationships = append(d.spdx.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(from)), Relationship: kind,
		RefB: common.MakeDocElementID("", string(to.PackageSPDXIdentifier)),
	})
}

// add returns the package of this name and version, which is listed once.
func (d document) add(name, version, purl string) *spdx.Package {
	id := packageID(name, version)
	for _, p := range d.spdx.Packages {
		if p.PackageSPDXIdentifier == id {
			return p
		}
	}
	pkg := &spdx.Package{
		PackageName: name, PackageSPDXIdentifier: id, PackageVersion: version,
		PackageDownloadLocation: noAssertion, PackageLicenseDeclared: noAssertion,
		PackageExternalReferences: []*spdx.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl,
		}},
	}
	d.spdx.Packages = append(d.spdx.Packages, pkg)
	return pkg
}

// notAllowed are the characters that an SPDX identifier must not have.
var notAllowed = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func packageID(name, version string) common.ElementID {
	return common.ElementID("Package-" + notAllowed.ReplaceAllString(name+"-"+version, "-"))
}
