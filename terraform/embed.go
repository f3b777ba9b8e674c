// Package terraform carries the module of this folder inside the program that applies it.
package terraform

import (
	"embed"
	"io/fs"
)

//go:embed *.tf
var module embed.FS

// Module is the module's files.
func Module() fs.FS { return module }
