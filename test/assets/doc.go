// Package assets is a module of its own: it pins the servers that the tests
// and the lab run against, so that the main module does not depend on them.
// The script build puts them into .assets/ at the root of the repository.
package assets
