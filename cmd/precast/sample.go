package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/operate/release"
	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/source"
)

// load reads what is to be imported.
func (c *importCmd) load(ctx context.Context, std streams, d *data, im *release.Importer) ([]release.Release, func(), error) {
	switch {
	case c.FromSample == "" && c.From == "":
		return nil, nil, errors.New("say what to import: a file or folder, or --from-sample")
	case c.FromSample == "" && c.From == "-":
		releases, err := readCatalog(std.in)
		return releases, func() {}, err
	case c.FromSample == "":
		return im.Load(ctx, c.From)
	case c.From != "":
		return nil, nil, errors.New("give a file or folder, or --from-sample, not both")
	}
	rows, err := sampleRows(ctx, c.FromSample)
	if err != nil {
		return nil, nil, err
	}
	// As LocalSources, and from S3: the person who runs the command may read what the items name.
	from := &source.Sources{Objects: d.objects, HTTP: &http.Client{Timeout: time.Hour}, Files: true, Other: map[string]builder.Sources{"s3": fromS3{}}}
	return im.LoadSample(ctx, rows, from)
}

func sampleRows(ctx context.Context, from string) ([]map[string]any, error) {
	if !strings.HasPrefix(from, "dynamodb:") {
		return release.ReadSample(from)
	}
	table, err := settings.Table(from)
	if err != nil {
		return nil, err
	}
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, err
	}
	return awsstore.Rows(ctx, dynamodb.NewFromConfig(cfg), table)
}

// fromS3 reads from S3 with the credentials of this machine, which only those need who read from there.
type fromS3 struct{}

func (fromS3) Open(ctx context.Context, url string) (io.ReadCloser, error) {
	cfg, err := awsstore.LoadConfig(ctx)
	if err != nil {
		return nil, err
	}
	return awsstore.NewSources(awsstore.NewS3(cfg)).Open(ctx, url)
}
