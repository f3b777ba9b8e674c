// Package shrink takes comments and white space out of what runs at the edge: CloudFront counts both.
package shrink

import (
	"fmt"

	"github.com/evanw/esbuild/pkg/api"
)

// JavaScript returns the same program without comments and white space. Syntax stays, as the runtime of
// CloudFront Functions knows no more than it documents; literals may be spelled otherwise (8e3, void 0). The same
// source gives the same bytes.
func JavaScript(name string, source []byte) ([]byte, error) {
	return transform(name, source, api.TransformOptions{
		Target: api.ES2017, // async functions; nothing in the sources is later
		// {x: x} would become {x}.
		Supported: map[string]bool{"object-extensions": false},
	})
}

// Module does the same to a module for Node.
func Module(name string, source []byte) ([]byte, error) {
	return transform(name, source, api.TransformOptions{Target: api.ESNext})
}

func transform(name string, source []byte, opt api.TransformOptions) ([]byte, error) {
	opt.Sourcefile, opt.Loader = name, api.LoaderJS
	opt.MinifyWhitespace, opt.LegalComments = true, api.LegalCommentsNone
	opt.TreeShaking, opt.Sourcemap, opt.LogLevel = api.TreeShakingFalse, api.SourceMapNone, api.LogLevelSilent
	result := api.Transform(string(source), opt)
	for _, m := range append(result.Errors, result.Warnings...) {
		return nil, fmt.Errorf("shrink %s: %s", name, m.Text)
	}
	return result.Code, nil
}
