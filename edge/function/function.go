// Package function has the sources of the viewer functions, and of what runs them outside of CloudFront.
package function

import _ "embed"

// The sources of the viewer functions, with comments. What is deployed is shrink.JavaScript of them.
var (
	//go:embed function.js
	Request []byte
	//go:embed response.js
	Response []byte
)

// Host is a script for a context of Node's vm: it stands in for what the runtime gives to a function.
//
//go:embed host.js
var Host string
