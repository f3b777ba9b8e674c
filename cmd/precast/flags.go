package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/settings"
)

// size is a number of bytes, written like 10MiB, 1.5GB or 4096.
type size = settings.Size

// dataFlag names the data folder, or the resources of a pipeline on AWS.
type dataFlag struct {
	Data        string `help:"Data folder. Commands that put something into it create it if it does not exist." env:"PRECAST_DATA" default:"precast-data" placeholder:"DIR" short:"d"`
	Objects     string `help:"Bucket of a pipeline on AWS, used instead of the data folder: s3://BUCKET." env:"PRECAST_OBJECTS" placeholder:"URL" group:"aws"`
	CatalogURL  string `help:"Table of the catalog: dynamodb://TABLE." name:"catalog" env:"PRECAST_CATALOG" placeholder:"URL" group:"aws"`
	Ledger      string `help:"Table of the ledger: dynamodb://TABLE." env:"PRECAST_LEDGER" placeholder:"URL" group:"aws"`
	Queue       string `help:"Job queue: sqs://HOST/ACCOUNT/NAME, or its https URL." env:"PRECAST_QUEUE" placeholder:"URL" group:"aws"`
	DeadLetters string `help:"The job queue's dead letters: sqs://HOST/ACCOUNT/NAME, or the https URL." env:"PRECAST_DEAD_LETTERS" placeholder:"URL" group:"aws"`

	Server    string        `help:"Work through the admin address of a running server, on this or another machine: https://HOST:PORT." env:"PRECAST_SERVER" placeholder:"URL" group:"server"`
	TokenFile string        `help:"With --server: file with the token to show to it." env:"PRECAST_TOKEN_FILE" placeholder:"FILE" group:"server"`
	CAFile    string        `help:"With --server: PEM file of the authorities to believe. Default: the system's." env:"PRECAST_CA_FILE" name:"ca-file" placeholder:"FILE" group:"server"`
	LockWait  time.Duration `help:"Wait this long for another command that uses the data folder." env:"PRECAST_LOCK_WAIT" default:"30s"`

	NewCatalog bool `help:"Begin with an empty catalog in a folder where something is published."`

	split bool          // see importCmd
	disk  settings.Disk // of a pipeline in this process that builds
	std   streams
}

// AfterApply keeps what commands talk to, to say that one waits.
func (f *dataFlag) AfterApply(std streams) error {
	f.std = std
	return nil
}

// remote tells whether the pipeline is on AWS.
func (f dataFlag) remote() bool {
	return f.Objects+f.CatalogURL+f.Ledger+f.Queue+f.DeadLetters != ""
}

// resources reads the URLs, and reports all errors in them at once.
func (f dataFlag) resources() (r awsdrivers.Resources, err error) {
	var errs []error
	read := func(flag, text string, parse func(string) (string, error)) string {
		v, err := parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		return v
	}
	r = awsdrivers.Resources{
		Bucket:         read("objects", f.Objects, settings.Bucket),
		CatalogTable:   read("catalog", f.CatalogURL, settings.Table),
		LedgerTable:    read("ledger", f.Ledger, settings.Table),
		QueueURL:       read("queue", f.Queue, settings.Queue),
		DeadLettersURL: read("dead-letters", f.DeadLetters, settings.Queue),
	}
	if len(errs) > 0 {
		return r, fmt.Errorf("a pipeline on AWS needs all five URLs: %w", errors.Join(errs...))
	}
	return r, nil
}

// buildFlags are the settings that decide what is built. Give serve, build and plan the same ones:
// the environment variables are a good place.
type buildFlags struct {
	Build settings.Build `embed:""`
}

// options are the settings for a pipeline on AWS, which always makes copies, or for one in a data folder.
func (f buildFlags) options(remote bool, log *slog.Logger, observer builder.Observer) (builder.Options, error) {
	opt, err := f.Build.Options(remote || f.Build.Copies)
	opt.Log, opt.Observer = log, observer
	return opt, err
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
	LogLevel  slog.Level `help:"Lowest level to log: debug, info, warn or error." env:"PRECAST_LOG_LEVEL" default:"info"`
	LogFormat string     `help:"Format of the log: text or json." env:"PRECAST_LOG_FORMAT" default:"text" enum:"text,json"`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	opt := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
