// Package awspipeline makes the drivers of a pipeline from AWS resources.
package awspipeline

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/streampoll"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/source"
)

// Resources name the AWS resources of a pipeline. Those with an empty name are not opened.
type Resources struct {
	Bucket         string
	CatalogTable   string
	LedgerTable    string
	QueueURL       string
	DeadLettersURL string
	// SplitChanges lets changes be written in several transactions where one cannot hold them.
	SplitChanges bool
}

// Open returns the drivers of resources. Poll sets their trigger, where no Lambda function reads the stream.
func Open(c *awsstore.Clients, p Resources) (pipeline.Drivers, error) {
	d := pipeline.Drivers{Remote: true}
	if p.Bucket != "" {
		objects, err := awsstore.NewObjects(c.S3, p.Bucket, awsstore.ObjectsOptions{})
		if err != nil {
			return d, err
		}
		d.Objects = objects
		d.Sources = &source.Sources{
			Objects: objects,
			HTTP:    &http.Client{Timeout: 15 * time.Minute}, // a Lambda function's life
			Other:   map[string]builder.Sources{"s3": awsstore.NewSources(c.S3)},
		}
	}
	if p.CatalogTable != "" {
		items, err := awsstore.NewCatalog(c.DynamoDB, p.CatalogTable, awsstore.CatalogOptions{Split: p.SplitChanges})
		if err != nil {
			return d, err
		}
		d.Catalog, d.Writer = items, items
	}
	if p.LedgerTable != "" {
		ledger, err := awsstore.NewLedger(c.DynamoDB, p.LedgerTable)
		if err != nil {
			return d, err
		}
		d.Ledger = ledger
	}
	if p.QueueURL != "" {
		queue, err := awsstore.NewQueue(c.SQS, p.QueueURL, awsstore.QueueOptions{DeadLetterURL: p.DeadLettersURL})
		if err != nil {
			return d, err
		}
		d.Queue, d.DeadLetters = queue, queue
	}
	return d, nil
}

// Poll gives drivers a trigger that reads the stream of the catalog's table.
func Poll(d *pipeline.Drivers, c *awsstore.Clients, streams streampoll.Client, p Resources) {
	ledger, queue := d.Ledger, d.Queue
	d.NewTrigger = func(window time.Duration, log *slog.Logger) (pipeline.Trigger, error) {
		checkpoints, err := streampoll.NewTableCheckpoints(c.DynamoDB, p.LedgerTable, p.CatalogTable)
		if err != nil {
			return nil, err
		}
		return streampoll.New(streampoll.Config{
			Client:      streams,
			Stream:      streampoll.LatestStream(c.DynamoDB, p.CatalogTable),
			Checkpoints: checkpoints,
			Ledger:      ledger,
			Queue:       queue,
			Window:      window,
			Logger:      log,
		})
	}
}
