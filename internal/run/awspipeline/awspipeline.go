// Package awspipeline makes the drivers of a pipeline from AWS resources.
package awspipeline

import (
	"log/slog"
	"time"

	"github.com/precast-ota/precast/internal/run/awsdrivers"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/streampoll"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
)

// Open returns the drivers of resources. Poll gives them a trigger, where no Lambda function reads the stream.
func Open(c *awsstore.Clients, r awsdrivers.Resources) (pipeline.Drivers, error) {
	d, err := awsdrivers.Open(c, r)
	return pipeline.Drivers{Ports: d.Ports, Writer: d.Writer, DeadLetters: d.DeadLetters, Numbers: d.Numbers, Remote: true}, err
}

// Poll gives drivers a trigger that reads the stream of the catalog's table.
func Poll(d *pipeline.Drivers, c *awsstore.Clients, streams streampoll.Client, r awsdrivers.Resources) {
	ledger, queue := d.Ledger, d.Queue
	d.NewTrigger = func(window time.Duration, log *slog.Logger) (pipeline.Trigger, error) {
		checkpoints, err := streampoll.NewTableCheckpoints(c.DynamoDB, r.LedgerTable, r.CatalogTable)
		if err != nil {
			return nil, err
		}
		return streampoll.New(streampoll.Config{
			Client:      streams,
			Stream:      streampoll.LatestStream(c.DynamoDB, r.CatalogTable),
			Checkpoints: checkpoints,
			Ledger:      ledger,
			Queue:       queue,
			Window:      window,
			Logger:      log,
		})
	}
}
