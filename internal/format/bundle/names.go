package bundle

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/precast-ota/precast/internal/format/layout"
)

// maxName is the limit of common file systems on one name, in bytes.
const maxName = 255

// checkNames refuses names that would not be extracted as one file each, side by side.
func checkNames(files []File) error {
	seen := make(map[string]struct{}, len(files)+1)
	seen[layout.ManifestName] = struct{}{}
	for _, f := range files {
		if err := checkName(f.Name); err != nil {
			return fmt.Errorf("check name %q: %w", f.Name, err)
		}
		if _, ok := seen[f.Name]; ok {
			return fmt.Errorf("check name %q: taken by another file", f.Name)
		}
		seen[f.Name] = struct{}{}
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("empty")
	case len(name) > maxName:
		return fmt.Errorf("longer than %d bytes", maxName)
	case name == "." || name == "..":
		return errors.New("a directory")
	case strings.ContainsAny(name, `/\`):
		return errors.New("has a path separator")
	case !utf8.ValidString(name):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("has a control character")
	}
	return nil
}
