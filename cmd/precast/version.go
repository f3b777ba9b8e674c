package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
)

// version is the release's tag. The linker sets it: go build -ldflags "-X main.version=v1.2.3". If it is empty, what
// the go command records in the program is used.
var version string

type versionCmd struct {
	jsonFlag
}

func (*versionCmd) Help() string {
	return `Prints which release or commit the program was built from, the format of what it builds, the version in which it
stores catalogs, and the version of Go. Programs of one format build the same bytes from the same catalog. A program
refuses a catalog that is stored in a later version. precast --version prints the same line.

Examples:
  precast version
  precast version --json | jq -r .revision`
}

func (c *versionCmd) Run(std streams) error {
	info, _ := debug.ReadBuildInfo() // nil without module support
	v := versionOf(version, info)
	if c.JSON {
		return printJSON(std.out, v)
	}
	_, err := fmt.Fprintln(std.out, v)
	return err
}

// versionView is what is known of how this program was built; what is not known is left out.
type versionView struct {
	Version  string     `json:"version"`            // "devel" if it is not known
	Revision string     `json:"revision,omitempty"` // commit
	Time     *time.Time `json:"time,omitempty"`     // of the commit
	Modified bool       `json:"modified,omitempty"` // the checkout had changes that were not committed
	Format   string     `json:"format"`
	Store    uint64     `json:"store"` // catalog.Version
	Go       string     `json:"go"`
	Platform string     `json:"platform"`
}

// versionOf prefers the version that the linker set to the module's.
func versionOf(linked string, info *debug.BuildInfo) versionView {
	v := versionView{Version: linked, Format: builder.FormatID, Store: catalog.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		if v.Version == "" && info.Main.Version != "(devel)" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.time":
				if at, err := time.Parse(time.RFC3339, s.Value); err == nil {
					v.Time = &at
				}
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	if v.Version == "" {
		v.Version = "devel"
	}
	return v
}

func (v versionView) String() string {
	text := "precast " + v.Version
	if v.Revision != "" {
		text += ", commit " + v.Revision[:min(12, len(v.Revision))]
		if v.Time != nil {
			text += " of " + v.Time.UTC().Format(time.RFC3339)
		}
		if v.Modified {
			text += " with changes"
		}
	}
	return fmt.Sprintf("%s, format %s, store %d, %s, %s", text, v.Format, v.Store, v.Go, v.Platform)
}
