// Package shrink takes comments and white space out of the viewer functions: CloudFront counts both.
package shrink

import (
	"fmt"

	"github.com/evanw/esbuild/pkg/api"
)

// JavaScript returns the same program without comments and white space. Syntax stays, as the runtime of
// CloudFront Functions knows no more than it documents; literals may be spelled otherwise (8e3, void 0). The same
// source gives the same bytes.
func JavaScript(name string, source []byte) ([]byte, error) {
	result := api.Transform(string(source), api.TransformOptions{
		Sourcefile:       name,
		Loader:           api.LoaderJS,
		Target:           api.ES2017, // async functions; nothing in the sources is later
		MinifyWhitespace: true,
		LegalComments:    api.LegalCommentsNone,
		TreeShaking:      api.TreeShakingFalse,
		Sourcemap:        api.SourceMapNone,
		LogLevel:         api.LogLevelSilent,
		// {x: x} would become {x}.
		Supported: map[string]bool{"object-extensions": false},
	})
	for _, m := range append(result.Errors, result.Warnings...) {
		return nil, fmt.Errorf("shrink %s: %s", name, m.Text)
	}
	return result.Code, nil
}
