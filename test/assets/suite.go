//go:build suite

package assets

// go.mod lists what e2e.test is made of because of this.
import _ "k8s.io/kubernetes/test/e2e"
