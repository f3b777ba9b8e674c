package pipeline

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/run/streampoll"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/source"
)

// Places name what a pipeline on AWS stands on. What is empty is not opened.
type Places struct {
	Bucket         string
	CatalogTable   string
	LedgerTable    string
	QueueURL       string
	DeadLettersURL string
	// SplitChanges lets changes be written in several transactions where one cannot hold them.
	SplitChanges bool
}

// AWS returns the drivers of places. Their trigger is set by Poll, where no function is on the stream.
func AWS(c *awsstore.Clients, p Places) (Drivers, error) {
	d := Drivers{Remote: true}
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

// Poll sets a trigger that reads the stream of the catalog's table.
func (d *Drivers) Poll(c *awsstore.Clients, streams streampoll.Client, p Places) {
	ledger, queue := d.Ledger, d.Queue
	d.NewTrigger = func(window time.Duration, log *slog.Logger) (Trigger, error) {
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
