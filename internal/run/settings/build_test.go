package settings

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
)

func TestDefaults(t *testing.T) {
	opt, err := Default().Options(true)
	want := builder.Options{Params: builder.DefaultParams(), PartBytes: 256 << 20, Concurrency: 4, Attempts: 5} // see builder.Options
	if err != nil || !reflect.DeepEqual(opt, want) {
		t.Errorf("%+v, %v; want %+v", opt, err, want)
	}
	without, err := Default().Options(false)
	if want.Params.MaxBundles = 0; err != nil || !reflect.DeepEqual(without, want) {
		t.Errorf("without copies: %+v, %v; want %+v", without, err, want)
	}
	if f, _ := reflect.TypeFor[Build]().FieldByName("Retain"); f.Tag.Get("max") != fmt.Sprint(index.MaxRetain) {
		t.Errorf("retain may be %s, the index has room for %d", f.Tag.Get("max"), index.MaxRetain)
	}
}

// A setting beyond its limits is refused, as a flag and as a variable, under either name of the variable.
func TestLimits(t *testing.T) {
	for _, c := range []struct{ variable, value, want string }{
		{"PRECAST_MAX_BYTES", "0", "0 is less than 1"},
		{"PRECAST_MAX_BYTES", "0KiB", "0 is less than 1"},
		{"PRECAST_MAX_COMBINATIONS", "0", "0 is less than 1"},
		{"PRECAST_RETAIN", "17", "17 is more than 16"},
		{"PRECAST_BASE_URL", "packages.example.com", `"packages.example.com" does not begin with https:// or http://`},
	} {
		earlier, _ := old(c.variable)
		for _, name := range []string{c.variable, earlier} {
			r, _ := reader(map[string]string{name: c.value})
			b := r.Build()
			if err := r.Err(); err == nil || err.Error() != "read environment: "+name+": "+c.want {
				t.Errorf("%s=%s: %v, want %s", name, c.value, err, c.want)
			}
			flag := "--" + strings.ReplaceAll(strings.ToLower(earlier), "_", "-")
			if _, err := b.Options(true); err == nil || err.Error() != flag+": "+c.want {
				t.Errorf("%s %s: %v, want %s", flag, c.value, err, c.want)
			}
		}
	}
	for _, c := range []struct{ variable, value string }{
		{"PRECAST_MAX_BUNDLES", "0"}, {"PRECAST_MAX_BUNDLES", "1"}, {"PRECAST_COPIES", "true"}, {"PRECAST_MAX_BUNDLES", "18446744073709551615"}, {"PRECAST_MAX_BYTES", "1"}, {"PRECAST_MAX_COMBINATIONS", "1"},
		{"PRECAST_SUBSET_ITEMS", "0"}, {"PRECAST_RETAIN", "0"}, {"PRECAST_RETAIN", "16"}, {"PRECAST_PART_BYTES", "0"}, {"PRECAST_CONCURRENCY", "0"},
		{"PRECAST_BASE_URL", "http://x"},
	} {
		r, _ := reader(map[string]string{c.variable: c.value})
		if err := r.Build().Validate(); err != nil || r.Err() != nil {
			t.Errorf("%s=%s: %v, %v", c.variable, c.value, err, r.Err())
		}
	}
	r, _ := reader(map[string]string{"PRECAST_MAX_BUNDLES": "many", "PRECAST_MAX_BYTES": "-1", "PRECAST_RETAIN": "1.5"})
	r.Build()
	for _, want := range []string{`PRECAST_MAX_BUNDLES: "many" cannot be read`, `PRECAST_MAX_BYTES: "-1" cannot be read`, `PRECAST_RETAIN: "1.5" cannot be read`} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

// table is what docs/operations.md says of the build settings.
func table() string {
	var b strings.Builder
	b.WriteString("| flag | variable | default | limits | Terraform | what it does |\n| --- | --- | --- | --- | --- | --- |\n")
	typ := reflect.TypeFor[Build]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, otherwise, allowed, variable := "`--"+flag(f)+"`", strings.TrimSpace(f.Tag.Get("default")+" "+f.Tag.Get("unit")), "", "none"
		if f.Tag.Get("kong") == "-" {
			name = "none"
		}
		if f.Type.Kind() == reflect.String {
			otherwise, allowed = "none: relative URLs", "begins with `https://` or `http://`"
		} else if f.Type.Kind() == reflect.Bool {
			allowed = "true or false"
		} else if least, most := limits(f); f.Tag.Get("max") != "" {
			allowed = fmt.Sprintf("%d to %d", least, most)
		} else {
			allowed = fmt.Sprintf("%d or more", least)
		}
		if v := f.Tag.Get("terraform"); v != "" {
			variable = "`" + v + "`"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", name, f.Tag.Get("env"), otherwise, allowed, variable, f.Tag.Get("help"))
	}
	return b.String()
}

func TestDocumentation(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\n\n" + table() + "\n"; !strings.Contains(string(doc), want) {
		t.Errorf("docs/operations.md does not have this table of the build settings:%s", want)
	}
}
