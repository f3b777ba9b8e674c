package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/run/admin"
	"github.com/precast-ota/precast/internal/run/awspipeline"
	"github.com/precast-ota/precast/internal/run/pipeline"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/local"
)

// data is what a command works on: a data folder of its own, one through the server that runs on it, or a
// pipeline on AWS.
type data struct {
	name    string // for people
	objects builder.Objects
	drivers pipeline.Drivers // unless server is set
	server  *admin.Client    // a server has the folder
	close   func() error
}

// catalogAccess is what commands do with a catalog.
type catalogAccess interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
	Apply(ctx context.Context, changes []catalog.Change) error
}

// open opens what the flags name.
func (f dataFlag) open(ctx context.Context) (*data, error) {
	if f.remote() {
		return f.openRemote(ctx)
	}
	store, err := local.Open(f.Data, local.Options{})
	if err == nil {
		return &data{name: f.Data, objects: store.Objects(), drivers: pipeline.Local(store), close: store.Close}, nil
	}
	if !errors.Is(err, local.ErrLocked) {
		return nil, err
	}
	endpoint, findErr := admin.Find(f.Data)
	if findErr != nil {
		return nil, fmt.Errorf("%w: wait for it to end", err)
	}
	objects, err := local.OpenObjects(f.Data)
	if err != nil {
		return nil, err
	}
	return &data{name: f.Data, server: admin.NewClient(endpoint), objects: objects}, nil
}

// existing is open for commands that only look: a mistyped name makes no folder.
func (f dataFlag) existing(ctx context.Context) (*data, error) {
	if _, err := os.Stat(f.Data); err != nil && !f.remote() {
		return nil, fmt.Errorf("open data folder: %w (precast seed or precast catalog put would make it)", err)
	}
	return f.open(ctx)
}

func (f dataFlag) openRemote(ctx context.Context) (*data, error) {
	if _, err := f.resources(); err != nil {
		return nil, err
	}
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, err
	}
	return f.openWith(cfg)
}

// openWith opens a pipeline on AWS.
func (f dataFlag) openWith(cfg aws.Config) (*data, error) {
	resources, err := f.resources()
	if err != nil {
		return nil, err
	}
	resources.SplitChanges = f.split
	clients := awsstore.NewClients(cfg)
	drivers, err := awspipeline.Open(clients, resources)
	if err != nil {
		return nil, err
	}
	awspipeline.Poll(&drivers, clients, dynamodbstreams.NewFromConfig(cfg), resources)
	return &data{name: f.CatalogURL, objects: drivers.Objects, drivers: drivers}, nil
}

func (d *data) Close() error {
	if d.close == nil {
		return nil
	}
	return d.close()
}

func (d *data) catalog() catalogAccess {
	if d.server != nil {
		return d.server
	}
	return struct {
		builder.Catalog
		builder.CatalogWriter
	}{d.drivers.Catalog, d.drivers.Writer}
}

// build builds and publishes, here or in the server.
func (d *data) build(ctx context.Context, opt builder.Options, plan builder.PlanOptions, observe func(pipeline.Event)) error {
	if d.server != nil {
		return d.server.Build(ctx, plan, observe)
	}
	return pipeline.New(d.drivers, pipeline.Config{Builder: opt}).Build(ctx, plan, observe)
}

func (d *data) status(ctx context.Context, opt builder.Options) (pipeline.Status, error) {
	if d.server != nil {
		return d.server.Status(ctx)
	}
	return pipeline.New(d.drivers, pipeline.Config{Builder: opt}).Status(ctx)
}

func (d *data) redrive(ctx context.Context) (int, error) {
	if d.server != nil {
		return d.server.Redrive(ctx)
	}
	return d.drivers.DeadLetters.Redrive(ctx)
}

// note says what happens next to a change.
func (d *data) note() string {
	switch {
	case d.server != nil:
		return "The server at " + d.server.Endpoint().URL + " builds it now."
	case d.drivers.Remote:
		return "The pipeline builds it now; precast status tells how far it is."
	}
	return "Run precast build or precast serve to publish it."
}
