package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/history"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/admin"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/local"
	"github.com/precast-ota/precast/internal/store/source"
)

// catalogAccess reads and changes a catalog.
type catalogAccess interface {
	// Snapshot returns every item as it was at one moment.
	Snapshot(ctx context.Context) ([]catalog.Item, error)
	// Apply makes all the changes or none. It fails with a release.Refusal if the guards refuse the edit.
	Apply(ctx context.Context, edit catalog.Edit) error
	catalogLog
	// Preview works out what an edit changes for devices, and what it would be refused for.
	Preview(ctx context.Context, edit catalog.Edit) (release.Difference, error)
}

// catalogLog reads the log of a catalog; see builder.CatalogWriter.
type catalogLog interface {
	Head(ctx context.Context) (catalog.Head, error)
	Log(ctx context.Context, after uint64, yield func(catalog.LogEntry) error) error
}

// jobs are what publishes the catalog.
type jobs interface {
	// Build returns once a plan of now, or a newer one, is published, or with a *pipeline.PinnedError once
	// everything is built and a pin keeps it from being published. Events on the way are passed to observe, unless
	// it is nil.
	Build(ctx context.Context, opt builder.PlanOptions, observe func(pipeline.Event)) error
	Status(ctx context.Context) (pipeline.Status, error)
	// Redrive puts the dead letters back into the queue and returns how many there were.
	Redrive(ctx context.Context) (int, error)
}

// releases decide which generation is published. An error is history.ErrRefused or history.ErrRace where nothing went
// wrong and the answer is no.
type releases interface {
	Rollback(ctx context.Context, r history.Request) (pipeline.RolledBack, error)
	Pin(ctx context.Context, by catalog.Author) (history.Pinned, error)
	Unpin(ctx context.Context, by catalog.Author) (history.Pinned, error)
}

// operations are what commands do with an installation. A *pipeline.Pipeline does them in this process, an
// *admin.Client has a running server do them.
type operations interface {
	catalogAccess
	jobs
	releases
}

// host is where the pipeline of an installation runs.
type host interface {
	// pipeline returns the pipeline. One in this process has these options; a server's has its own.
	pipeline(opt builder.Options) operations
	// note says what happens next to a change of the catalog.
	note() string
	// cdn connects to the CDN that this process has to tell of what it publishes; nil if there is none to tell.
	cdn(ctx context.Context, f publishFlags, std streams) (*cdn.CDN, error)
}

// data is the installation that a command works on: a data folder, or a pipeline on AWS.
type data struct {
	host
	name    string // for people
	objects builder.Objects
	sources builder.Sources // of binaries
	close   func() error
}

func (d *data) Close() error { return d.close() }

// temp is the folder for temporary files: on the disk of the data folder where there is one, else the system's.
func (d *data) temp() string {
	if o, ok := d.objects.(interface{ Temp() string }); ok {
		return o.Temp()
	}
	return os.TempDir()
}

func (d *data) catalog() catalogAccess { return d.pipeline(builder.Options{}) }

// open opens what the flags name. Where a server has the data folder, the pipeline is the server's.
func (f dataFlag) open(ctx context.Context) (*data, error) {
	if f.Server != "" {
		return f.openServer()
	}
	return f.openFolder(ctx, local.Options{NewCatalog: f.NewCatalog})
}

// openFolder is open with options for a data folder.
func (f dataFlag) openFolder(ctx context.Context, opt local.Options) (*data, error) {
	drivers, closeAll, err := f.takeFolder(ctx, opt)
	if err == nil {
		return f.inProcess(drivers, closeAll), nil
	}
	served, ok := errors.AsType[*servedError](err)
	if !ok {
		return nil, err
	}
	objects, err := local.OpenObjects(f.Data)
	if err != nil {
		return nil, err
	}
	return &data{host: runningServer{served.by}, name: f.Data, objects: objects, sources: pipeline.LocalSources(objects), close: noClose}, nil
}

// openServer opens the installation of a server that is reached by its admin address.
func (f dataFlag) openServer() (*data, error) {
	if f.remote() {
		return nil, errors.New("give --server, or the URLs of a pipeline on AWS, not both")
	}
	if f.TokenFile == "" {
		return nil, errors.New("--server needs --token-file (PRECAST_TOKEN_FILE)")
	}
	token, err := admin.ReadToken(f.TokenFile)
	if err != nil {
		return nil, err
	}
	var roots *x509.CertPool
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, err
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", f.CAFile)
		}
	}
	client, err := admin.NewRemoteClient(f.Server, token, roots)
	if err != nil {
		return nil, err
	}
	objects := client.Objects()
	sources := &source.Sources{Objects: objects, HTTP: &http.Client{Timeout: time.Hour}} // files are the server's
	return &data{host: runningServer{client}, name: f.Server, objects: objects, sources: sources, close: noClose}, nil
}

// existing is open for commands that only look: a mistyped name makes no folder, and no database.
func (f dataFlag) existing(ctx context.Context) (*data, error) {
	if f.Server != "" {
		return f.openServer()
	}
	const hint = "(precast seed or precast catalog put would make it)"
	if _, err := os.Stat(f.Data); err != nil && !f.remote() {
		return nil, fmt.Errorf("open data folder: %w %s", err, hint)
	}
	d, err := f.openFolder(ctx, local.Options{Existing: true, NewCatalog: f.NewCatalog})
	if errors.Is(err, local.ErrNoCatalog) {
		return nil, fmt.Errorf("%w %s", err, hint)
	}
	return d, err
}

// openWith opens a pipeline on AWS.
func (f dataFlag) openWith(ctx context.Context, cfg aws.Config) (*data, error) {
	drivers, err := f.driversOnAWS(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return f.inProcess(drivers, noClose), nil
}

// take opens what the flags name for a pipeline in this process. It fails with a *servedError if a server has the data
// folder.
func (f dataFlag) take(ctx context.Context) (pipeline.Drivers, func() error, error) {
	return f.takeFolder(ctx, local.Options{NewCatalog: f.NewCatalog})
}

// takeFolder is take with options for a data folder.
func (f dataFlag) takeFolder(ctx context.Context, opt local.Options) (pipeline.Drivers, func() error, error) {
	if f.Server != "" {
		return pipeline.Drivers{}, nil, errors.New("this has to have a data folder to itself, or to be on AWS: it does not work through a server; leave out --server (PRECAST_SERVER)")
	}
	if f.remote() {
		if _, err := f.resources(); err != nil {
			return pipeline.Drivers{}, nil, err
		}
		if err := files.Sweep(os.TempDir(), release.TempPrefix); err != nil {
			return pipeline.Drivers{}, nil, err
		}
		cfg, err := awsstore.LoadConfig(ctx)
		if err != nil {
			return pipeline.Drivers{}, nil, err
		}
		drivers, err := f.driversOnAWS(ctx, cfg)
		return drivers, noClose, err
	}
	start, said := time.Now(), false
	for {
		store, readOnly, err := openLocal(f.Data, opt)
		if err == nil {
			drivers := pipeline.Local(store)
			drivers.ReadOnly = readOnly
			return drivers, store.Close, nil
		}
		if errors.Is(err, local.ErrLostCatalog) {
			return pipeline.Drivers{}, nil, f.lost(ctx, err)
		}
		if !errors.Is(err, local.ErrLocked) {
			return pipeline.Drivers{}, nil, err
		}
		served, unreached := servedBy(ctx, f.Data, err)
		if served != nil {
			return pipeline.Drivers{}, nil, served
		}
		waited := time.Since(start)
		switch {
		case ctx.Err() != nil:
			return pipeline.Drivers{}, nil, ctx.Err()
		case waited >= f.LockWait:
			return pipeline.Drivers{}, nil, lockedError(err, f.LockWait, unreached)
		case waited >= time.Second && !said && f.std.err != nil:
			said = true
			fmt.Fprintf(f.std.err, "precast: waiting for another process that uses %s (--lock-wait %s)\n", f.Data, f.LockWait)
		}
	}
}

// openLocal opens a data folder, to read only if this process cannot write to it.
func openLocal(dir string, opt local.Options) (store *local.Store, readOnly bool, err error) {
	store, err = local.Open(dir, opt)
	if err == nil || !local.CannotWrite(err) {
		return store, false, err
	}
	store, readErr := local.OpenReadOnly(dir, opt)
	if errors.Is(readErr, fs.ErrNotExist) || errors.Is(readErr, fs.ErrPermission) {
		return nil, false, err // there is nothing to read either
	}
	return store, true, readErr
}

// servedBy finds the server that has a data folder, if it is there and proves itself. Otherwise it tells why not.
func servedBy(ctx context.Context, dir string, locked error) (*servedError, error) {
	endpoint, err := admin.Find(dir)
	if errors.Is(err, admin.ErrNoServer) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	client, err := admin.NewClient(endpoint)
	if err == nil {
		err = client.Reach(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &servedError{locked, client, endpoint}, nil
}

func lockedError(locked error, waited time.Duration, unreached error) error {
	if unreached != nil {
		return fmt.Errorf("%w, still after %s (--lock-wait); it may be a server that is out of reach from here (%w): give --server", locked, waited, unreached)
	}
	return fmt.Errorf("%w, still after %s (--lock-wait): wait for it to end", locked, waited)
}

// lost says what can be done where something is published, and the catalog is gone.
func (f dataFlag) lost(ctx context.Context, err error) error {
	published := "something"
	if objects, openErr := local.OpenObjects(f.Data); openErr == nil {
		if ix, _, readErr := builder.ReadIndex(ctx, objects); readErr == nil && ix != nil {
			published = fmt.Sprintf("generation %d", ix.Generation)
		}
	}
	return no("%w: precast.db is missing, or empty, though %s is published. precast restore brings a backup back; "+
		"precast catalog recover makes the catalog again from what is published; --new-catalog begins with an empty one", err, published)
}

// servedError: a server has the data folder.
type servedError struct {
	error
	by *admin.Client
	at admin.Endpoint
}

func (e *servedError) Error() string {
	return fmt.Sprintf("%v: precast serve, pid %d, at %s", e.error, e.at.PID, e.at.URL)
}

func (e *servedError) Unwrap() error { return e.error }

func (f dataFlag) driversOnAWS(ctx context.Context, cfg aws.Config) (pipeline.Drivers, error) {
	resources, err := f.resources()
	if err != nil {
		return pipeline.Drivers{}, err
	}
	resources.SplitChanges = f.split
	clients := awsstore.NewClients(cfg)
	drivers, err := awspipeline.Open(clients, resources)
	if err != nil {
		return pipeline.Drivers{}, err
	}
	// Of the ledger this is all that matters here: one whose table is lost is for the command to find.
	_, err = drivers.Catalog.Head(ctx)
	if err, later := errors.AsType[catalog.VersionError](err); later {
		return pipeline.Drivers{}, fmt.Errorf("open %s: %w", f.CatalogURL, err)
	}
	drivers.Actor = awspipeline.Caller(cfg)
	awspipeline.Poll(&drivers, clients, dynamodbstreams.NewFromConfig(cfg), resources)
	return drivers, nil
}

func noClose() error { return nil }

func (f dataFlag) inProcess(drivers pipeline.Drivers, closeAll func() error) *data {
	d := &data{host: thisProcess{drivers, f.disk}, name: f.Data, objects: drivers.Objects, sources: drivers.Sources, close: closeAll}
	if drivers.Remote {
		d.name = f.CatalogURL
	}
	return d
}

// thisProcess is a host.
type thisProcess struct {
	drivers pipeline.Drivers
	disk    settings.Disk
}

func (p thisProcess) pipeline(opt builder.Options) operations {
	return pipeline.New(p.drivers, pipeline.Config{Builder: opt, MinFree: p.disk.MinFree})
}

func (p thisProcess) note() string {
	if p.drivers.Remote {
		return "The pipeline builds it now; precast status tells how far it is."
	}
	return "Run precast build or precast serve to publish it."
}

func (p thisProcess) cdn(ctx context.Context, f publishFlags, std streams) (*cdn.CDN, error) {
	return f.connect(ctx, p.drivers.Objects, errorLog(std))
}

// runningServer is a host: the precast serve that has the data folder.
type runningServer struct{ client *admin.Client }

func (s runningServer) pipeline(builder.Options) operations { return s.client }

func (s runningServer) note() string {
	return "The server at " + s.client.URL() + " builds it now."
}

func (s runningServer) cdn(_ context.Context, f publishFlags, std streams) (*cdn.CDN, error) {
	if f.edge() != (cdn.Resources{}) { // somebody counts on it
		fmt.Fprintf(std.err, "precast: --distribution and --key-value-store are not used: the server at %s publishes, and tells the CDN that it was started with\n", s.client.URL())
	}
	return nil, nil
}
