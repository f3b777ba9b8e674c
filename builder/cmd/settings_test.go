package cmd_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/run/settings"
)

// The table of the functions in docs/operations.md has every variable that a function reads, and no other.
func TestSettingsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`PRECAST_\w+`)
	for _, function := range []string{"enqueuer", "builder", "composer"} {
		source, err := os.ReadFile(function + "/main.go")
		if err != nil {
			t.Fatal(err)
		}
		reads := variable.FindAllString(string(source), -1)
		for call, of := range map[string]reflect.Type{"env.Signing()": reflect.TypeFor[settings.Signing](), "env.CDN()": reflect.TypeFor[settings.CDN]()} {
			if strings.Contains(string(source), call) {
				for _, f := range reflect.VisibleFields(of) {
					reads = append(reads, f.Tag.Get("env"))
				}
			}
		}
		row := regexp.MustCompile(`(?m)^\| ` + function + ` \|.*$`).FindString(string(doc))
		says := variable.FindAllString(row, -1)
		slices.Sort(reads)
		slices.Sort(says)
		if len(reads) < 4 || !slices.Equal(slices.Compact(reads), says) {
			t.Errorf("docs/operations.md says that the %s reads %v, but it reads %v", function, says, reads)
		}
		if strings.Contains(string(source), "env.Build()") != strings.Contains(row, "(#build-settings)") {
			t.Errorf("docs/operations.md is wrong about the build settings of the %s", function)
		}
	}
}
