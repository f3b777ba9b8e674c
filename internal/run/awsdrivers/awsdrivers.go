// Package awsdrivers opens the drivers of named AWS resources. It knows no pipeline, so that a Lambda function links only
// what it uses.
package awsdrivers

import (
	"context"
	"net/http"
	"time"

	"github.com/precast-ota/precast/builder"
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

// Drivers are those of the resources.
type Drivers struct {
	builder.Ports
	Writer      builder.CatalogWriter
	DeadLetters builder.DeadLetters
	// Numbers are those of the ledger.
	Numbers interface {
		Advance(ctx context.Context, n uint64) error
	}
}

// Open returns the drivers of resources.
func Open(c *awsstore.Clients, r Resources) (Drivers, error) {
	var d Drivers
	if r.Bucket != "" {
		objects, err := awsstore.NewObjects(c.S3, r.Bucket, awsstore.ObjectsOptions{})
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
	if r.CatalogTable != "" {
		items, err := awsstore.NewCatalog(c.DynamoDB, r.CatalogTable, r.LedgerTable, awsstore.CatalogOptions{Split: r.SplitChanges})
		if err != nil {
			return d, err
		}
		d.Catalog, d.Writer = items, items
	}
	if r.LedgerTable != "" {
		ledger, err := awsstore.NewLedger(c.DynamoDB, r.LedgerTable)
		if err != nil {
			return d, err
		}
		d.Ledger, d.Numbers = ledger, ledger
	}
	if r.QueueURL != "" {
		queue, err := awsstore.NewQueue(c.SQS, r.QueueURL, awsstore.QueueOptions{DeadLetterURL: r.DeadLettersURL})
		if err != nil {
			return d, err
		}
		d.Queue, d.DeadLetters = queue, queue
	}
	return d, nil
}
