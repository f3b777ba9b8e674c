package station

import (
	"net/http"
	"time"

	"precast/builder"
	"precast/internal/awsstore"
	"precast/internal/source"
)

// Places name what a pipeline on AWS stands on. What is empty is not opened.
type Places struct {
	Bucket         string
	CatalogTable   string
	LedgerTable    string
	QueueURL       string
	DeadLettersURL string
}

// AWS returns the drivers of places. Their change log is the table's stream, which is not theirs to read.
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
		items, err := awsstore.NewCatalog(c.DynamoDB, p.CatalogTable, awsstore.CatalogOptions{})
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
