package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
)

// size is a number of bytes, written like 10MiB, 1.5GB or 4096.
type size int64

var sizeType = reflect.TypeFor[size]()

type sizeMapper struct{}

func (sizeMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("size", &text); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size: write 10MiB, 1.5GB or 4096", text)
	}
	target.SetInt(int64(n))
	return nil
}

// dataFlag names the data folder, or the parts of a pipeline on AWS.
type dataFlag struct {
	Data        string `help:"Data folder; made if it is not there." env:"PRECAST_DATA" default:"precast-data" placeholder:"DIR" short:"d"`
	Objects     string `help:"On AWS instead of in the data folder: s3://BUCKET." env:"PRECAST_OBJECTS" placeholder:"URL" group:"aws"`
	CatalogURL  string `help:"dynamodb://TABLE, of the catalog." name:"catalog" env:"PRECAST_CATALOG" placeholder:"URL" group:"aws"`
	Ledger      string `help:"dynamodb://TABLE, of the ledger." env:"PRECAST_LEDGER" placeholder:"URL" group:"aws"`
	Queue       string `help:"sqs://HOST/ACCOUNT/NAME of the job queue, or its https URL." env:"PRECAST_QUEUE" placeholder:"URL" group:"aws"`
	DeadLetters string `help:"The same, of its dead letters." env:"PRECAST_DEAD_LETTERS" placeholder:"URL" group:"aws"`

	split bool // see importCmd
}

// remote tells whether the pipeline is on AWS.
func (f dataFlag) remote() bool {
	return f.Objects+f.CatalogURL+f.Ledger+f.Queue+f.DeadLetters != ""
}

// resources reads the URLs; it says everything that is wrong with them at once.
func (f dataFlag) resources() (awsdrivers.Resources, error) {
	var errs []error
	name := func(flag, value, scheme, example string) string {
		rest, ok := strings.CutPrefix(value, scheme)
		if !ok || rest == "" || strings.Contains(rest, "/") {
			errs = append(errs, fmt.Errorf("--%s: %q is not of the form %s%s", flag, value, scheme, example))
		}
		return rest
	}
	queue := func(flag, value string) string {
		if rest, ok := strings.CutPrefix(value, "sqs://"); ok {
			value = "https://" + rest
		}
		if u, err := url.Parse(value); err != nil || u.Host == "" || u.Path == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, fmt.Errorf("--%s: %q is not of the form sqs://HOST/ACCOUNT/NAME", flag, value))
		}
		return value
	}
	p := awsdrivers.Resources{
		Bucket:         name("objects", f.Objects, "s3://", "BUCKET"),
		CatalogTable:   name("catalog", f.CatalogURL, "dynamodb://", "TABLE"),
		LedgerTable:    name("ledger", f.Ledger, "dynamodb://", "TABLE"),
		QueueURL:       queue("queue", f.Queue),
		DeadLettersURL: queue("dead-letters", f.DeadLetters),
	}
	if len(errs) > 0 {
		return p, fmt.Errorf("a pipeline on AWS takes all five URLs: %w", errors.Join(errs...))
	}
	return p, nil
}

// buildFlags are the settings that decide what is built. Give serve, build and plan the same ones:
// the environment variables are a good place.
type buildFlags struct {
	BaseURL         string `help:"Put before /binaries/... in manifests, such as https://packages.example.com." env:"PRECAST_BASE_URL" placeholder:"URL"`
	MaxBundles      uint64 `help:"Prebuild at most this many bundles." env:"PRECAST_MAX_BUNDLES" default:"10000"`
	MaxBytes        size   `help:"Prebuild bundles of at most this many bytes before compression." env:"PRECAST_MAX_BYTES" default:"16GiB"`
	MaxCombinations uint64 `help:"Look at no more combinations of attributes than this." env:"PRECAST_MAX_COMBINATIONS" default:"100000"`
	SubsetItems     uint64 `help:"Prebuild every subset of sets of up to this many items." env:"PRECAST_SUBSET_ITEMS" default:"4"`
	Retain          uint64 `help:"Prebuild upgrade paths from this many earlier generations." env:"PRECAST_RETAIN" default:"3"`
}

func (f buildFlags) params() (index.Params, error) {
	if f.Retain > index.MaxRetain {
		return index.Params{}, fmt.Errorf("--retain: %d is more than %d", f.Retain, index.MaxRetain)
	}
	if f.MaxBundles == 0 || f.MaxBytes == 0 || f.MaxCombinations == 0 {
		return index.Params{}, fmt.Errorf("--max-bundles, --max-bytes and --max-combinations must be more than 0")
	}
	return index.Params{
		MaxBundles:      f.MaxBundles,
		MaxBytes:        uint64(f.MaxBytes),
		MaxCombinations: f.MaxCombinations,
		SubsetItems:     f.SubsetItems,
		Retain:          f.Retain,
	}, nil
}

func (f buildFlags) options(log *slog.Logger, observer builder.Observer) (builder.Options, error) {
	params, err := f.params()
	if err != nil {
		return builder.Options{}, err
	}
	if f.BaseURL != "" && !strings.HasPrefix(f.BaseURL, "https://") && !strings.HasPrefix(f.BaseURL, "http://") {
		return builder.Options{}, fmt.Errorf("--base-url: %q does not begin with https:// or http://", f.BaseURL)
	}
	return builder.Options{Params: params, BaseURL: f.BaseURL, Log: log, Observer: observer}, nil
}

// jsonFlag asks for output that scripts read.
type jsonFlag struct {
	JSON bool `help:"Print JSON." name:"json"`
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// logFlags configure the log, which goes to standard error.
type logFlags struct {
	LogLevel  slog.Level `help:"Log from this level up: debug, info, warn or error." env:"PRECAST_LOG_LEVEL" default:"info"`
	LogFormat string     `help:"text or json." env:"PRECAST_LOG_FORMAT" default:"text" enum:"text,json"`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	opt := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
