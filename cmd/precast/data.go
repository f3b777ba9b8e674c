package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"precast/builder"
	"precast/internal/admin"
	"precast/internal/catalog"
	"precast/internal/localstore"
	"precast/internal/station"
)

// data is a data folder in use by this command: its own, or through the server that runs on it.
type data struct {
	dir     string
	objects *localstore.Objects
	store   *localstore.Store // nil: a server has the folder
	server  *admin.Client     // nil: this process has it
}

// catalogAccess is what commands do with a catalog.
type catalogAccess interface {
	Snapshot(ctx context.Context) ([]catalog.Item, error)
	Apply(ctx context.Context, changes []catalog.Change) error
}

// openData opens a data folder, or finds the server that runs on it.
func openData(dir string) (*data, error) {
	store, err := localstore.Open(dir, localstore.Options{})
	if err == nil {
		return &data{dir: dir, store: store, objects: store.Objects()}, nil
	}
	if !errors.Is(err, localstore.ErrLocked) {
		return nil, err
	}
	endpoint, findErr := admin.Find(dir)
	if findErr != nil {
		return nil, fmt.Errorf("%w: wait for it to end", err)
	}
	objects, err := localstore.OpenObjects(dir)
	if err != nil {
		return nil, err
	}
	return &data{dir: dir, server: admin.NewClient(endpoint), objects: objects}, nil
}

// existingData is openData for commands that only look: a mistyped name makes no folder.
func existingData(dir string) (*data, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("open data folder: %w (precast seed or precast catalog put would make it)", err)
	}
	return openData(dir)
}

func (d *data) Close() error {
	if d.store == nil {
		return nil
	}
	return d.store.Close()
}

func (d *data) catalog() catalogAccess {
	if d.server != nil {
		return d.server
	}
	return d.store.Catalog()
}

// build builds and publishes, here or in the server.
func (d *data) build(ctx context.Context, opt builder.Options, plan builder.PlanOptions, observe func(station.Event)) error {
	if d.server != nil {
		return d.server.Build(ctx, plan, observe)
	}
	s := station.New(station.Local(d.store), station.Config{Builder: opt})
	return s.Build(ctx, plan, true, observe)
}

func (d *data) status(ctx context.Context, opt builder.Options) (station.Status, error) {
	if d.server != nil {
		return d.server.Status(ctx)
	}
	return station.New(station.Local(d.store), station.Config{Builder: opt}).Status(ctx)
}

func (d *data) redrive(ctx context.Context) (int, error) {
	if d.server != nil {
		return d.server.Redrive(ctx)
	}
	return d.store.Queue().Redrive(ctx)
}

// note says what happens next to a change.
func (d *data) note() string {
	if d.server != nil {
		return "The server at " + d.server.Endpoint().URL + " builds it now."
	}
	return "Run precast build or precast serve to publish it."
}
