package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
)

// Size is a number of bytes, written like 10MiB, 1.5GB or 4096.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size: write 10MiB, 1.5GB or 4096", text)
	}
	*s = Size(n)
	return nil
}

// Build are the settings that decide what is built. This is their only declaration, as Signing and CDN are of theirs:
// the flags of precast, the environment of the builder function and their limits are read from its tags, and tests hold the Terraform module and
// docs/operations.md to them. The tags help, env, default and placeholder are kong's; min and max are the limits, both
// included; unit is what the number counts; terraform is the variable that sets it.
type Build struct {
	BaseURL         string `help:"Put before /binaries/... in manifests, such as https://packages.example.com." env:"PRECAST_BASE_URL" placeholder:"URL" form:"url" terraform:"aliases"`
	Copies          bool   `help:"Also write bundles and manifests as files, within the limits below, for another server to send. On AWS they always are." env:"PRECAST_COPIES" default:"false"`
	MaxBundles      uint64 `help:"Prebuild at most this many bundles; 0: none, every answer is composed." env:"PRECAST_MAX_BUNDLES" default:"10000" unit:"bundles" terraform:"build_settings.max_bundles"`
	MaxBytes        Size   `help:"Prebuild bundles of at most this many bytes before compression." env:"PRECAST_MAX_BYTES" default:"16GiB" min:"1" terraform:"build_settings.max_bytes"`
	MaxCombinations uint64 `help:"Look at no more combinations of attributes than this." env:"PRECAST_MAX_COMBINATIONS" default:"100000" min:"1" unit:"combinations" terraform:"build_settings.max_combinations"`
	SubsetItems     uint64 `help:"Prebuild every subset of sets of up to this many items." env:"PRECAST_SUBSET_ITEMS" default:"4" unit:"items" terraform:"build_settings.subset_items"`
	Retain          uint64 `help:"Prebuild upgrade paths from this many earlier generations." env:"PRECAST_RETAIN" default:"3" max:"16" unit:"generations" terraform:"build_settings.retain"`

	// Of the builder function alone; 0 is the default. They change how the work is divided, not what is built.
	PartBytes   Size   `kong:"-" help:"Give one job bundles that bring this many bytes before compression." env:"PRECAST_PART_BYTES" default:"256MiB" terraform:"build_settings.part_bytes"`
	Concurrency uint64 `kong:"-" help:"Write this many objects of a job at a time." env:"PRECAST_CONCURRENCY" default:"4" max:"1000" unit:"objects" terraform:"build_settings.concurrency"`
	Attempts    uint64 `kong:"-" help:"Try a binary that cannot be read this often before its item is left out." env:"PRECAST_ATTEMPTS" default:"5" max:"5" unit:"attempts"`
}

// Default returns the settings that nobody has changed.
func Default() Build {
	return New(func(string) (string, bool) { return "", false }, slog.New(slog.DiscardHandler)).Build()
}

// Validate says everything that is wrong with the settings, by the names of their flags.
func (b Build) Validate() error {
	var errs []error
	v := reflect.ValueOf(b)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if err := check(f, v.Field(i)); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag(f), err))
		}
	}
	return errors.Join(errs...)
}

// flag is the name of a setting's flag.
func flag(f reflect.StructField) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(f.Tag.Get("env"), prefix)), "_", "-")
}

// check compares a setting with its limits.
func check(f reflect.StructField, v reflect.Value) error {
	if f.Tag.Get("form") == "url" {
		if s := v.String(); s != "" && !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
			return fmt.Errorf("%q does not begin with https:// or http://", s)
		}
		return nil
	}
	if f.Tag.Get("min")+f.Tag.Get("max") == "" {
		return nil
	}
	n := v.Convert(reflect.TypeFor[uint64]()).Uint()
	if least, most := limits(f); n < least {
		return fmt.Errorf("%d is less than %d", n, least)
	} else if n > most {
		return fmt.Errorf("%d is more than %d", n, most)
	}
	return nil
}

// limits returns the least and the greatest value of a setting that is a number.
func limits(f reflect.StructField) (least, most uint64) {
	least, _ = strconv.ParseUint(f.Tag.Get("min"), 10, 64) // without the tag: 0
	most, err := strconv.ParseUint(f.Tag.Get("max"), 10, 64)
	if err != nil { // without the tag
		most = 1<<64 - 1
	}
	return least, most
}

// Options are the settings as a builder takes them, with copies or without. Settings that are not valid are an error.
func (b Build) Options(copies bool) (builder.Options, error) {
	bundles := b.MaxBundles
	if !copies {
		bundles = 0
	}
	return builder.Options{
		Params: index.Params{
			MaxBundles:      bundles,
			MaxBytes:        uint64(b.MaxBytes),
			MaxCombinations: b.MaxCombinations,
			SubsetItems:     b.SubsetItems,
			Retain:          b.Retain,
		},
		BaseURL:     b.BaseURL,
		PartBytes:   int64(b.PartBytes),
		Concurrency: int(b.Concurrency),
		Attempts:    int(b.Attempts),
	}, b.Validate()
}
