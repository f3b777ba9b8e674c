package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/precast-ota/precast/builder"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/terraform/deploy"
)

type destroyCmd struct {
	installationFlags
	jsonFlag
	Yes           bool          `help:"Delete without asking for confirmation."`
	Wait          time.Duration `help:"How long to wait until the edge function's replicas are gone." default:"0s"`
	Backend       string        `help:"Terraform file with a backend block, if the installation's folder is lost." placeholder:"FILE" type:"existingfile"`
	BackendConfig []string      `help:"Setting of the backend: NAME=VALUE, or a file." placeholder:"SETTING" sep:"none"`
}

func (*destroyCmd) Help() string {
	return `Deletes an installation: the bucket with every version of every object, the tables, the distribution,
the functions, their logs, and everything else that Terraform created. It lists what will be deleted,
and asks you to type the installation's name. If it fails or is interrupted, run the same command again
to resume.

The edge function can be deleted only some hours after its distribution. If only that function is left,
the command says so and exits with 3: run it again later, or use --wait.

Examples:
  precast destroy --name fleet
  precast destroy --name fleet --yes --wait 6h`
}

// destroyed is what destroy prints as JSON.
type destroyed struct {
	deploy.Inventory
	Content deploy.Content    `json:"content"`
	Items   map[string]int64  `json:"items"` // of the tables
	EdgeLog int               `json:"edgeLogGroups"`
	Left    []deploy.Leftover `json:"left"`
	Seconds float64           `json:"seconds"`
}

func (c *destroyCmd) Run(ctx context.Context, std streams) error {
	start := time.Now()
	a, err := c.connect(ctx)
	if err != nil {
		return err
	}
	s, kept, err := c.settings(a)
	if err != nil {
		return err
	}
	if !kept && c.Backend == "" {
		return fmt.Errorf("open %s: %w; name its --dir, or its state by --backend", c.dir(), deploy.ErrNone)
	}
	if len(c.BackendConfig) > 0 {
		s.BackendConfig = c.BackendConfig
	}
	i, err := deploy.Prepare(ctx, c.options(std.err), s, deploy.Files{Backend: c.Backend})
	if err != nil {
		return err
	}
	done := destroyed{Items: make(map[string]int64), Left: []deploy.Leftover{}}
	edge, err := c.everything(ctx, a, i, std, &done)
	if err == nil {
		done.Left, err = c.edge(ctx, a, i, edge, std, &done)
	}
	if err != nil && len(done.Left) == 0 {
		return err
	}
	if err == nil {
		if err := i.Remove(); err != nil {
			return err
		}
	}
	done.Seconds = time.Since(start).Seconds()
	if c.JSON {
		return errors.Join(printJSON(std.out, done), err)
	}
	if err == nil {
		fmt.Fprintf(std.out, "%s is deleted. It took %s.\n", c.Name, time.Since(start).Round(time.Second))
	}
	return err
}

// everything destroys all but the function at the edge, whose name it returns.
func (c *destroyCmd) everything(ctx context.Context, a account, i *deploy.Installation, std streams, done *destroyed) (edge string, err error) {
	waiting := i.Settings.Leftover
	if waiting == nil {
		adopted, err := i.Adopt(ctx, a.finder())
		if err == nil {
			err = i.Own(ctx, adopted)
		}
		if err != nil {
			return "", c.resumable(err, i)
		}
	}
	inv, err := i.Inventory(ctx)
	if err != nil {
		return "", err
	}
	done.Inventory = inv
	edge = inv.Edge
	if waiting != nil {
		edge = waiting.Function
	}
	clients := awsstore.NewClients(a.cfg)
	if inv.Bucket != "" {
		if done.Content, err = deploy.Count(ctx, clients.S3, inv.Bucket); err != nil {
			return "", err
		}
	}
	for _, t := range inv.Tables {
		if done.Items[t], err = countItems(ctx, clients.DynamoDB, t); err != nil {
			return "", err
		}
	}
	if inv.Resources == 0 {
		return edge, nil
	}
	fmt.Fprintf(std.err, "This deletes from account %s, %s:\n", a.id, a.cfg.Region)
	inv.Print(std.err, done.Content, done.Items, bytesText)
	if !c.Yes {
		if err := confirmed(std, "Type the installation's name to delete all of it: ", c.Name); err != nil {
			return "", err
		}
	}
	if err := i.Unprotect(ctx, inv); err != nil {
		return "", c.resumable(err, i)
	}
	err = i.Destroy(ctx, inv, func(ctx context.Context) error {
		return deploy.Empty(ctx, clients.S3, inv.Bucket, func(deleted int) {
			fmt.Fprintf(std.err, "bucket %s: %d of %d deleted\n", inv.Bucket, deleted, max(deleted, done.Content.Objects))
		})
	})
	return edge, c.resumable(err, i)
}

func (c *destroyCmd) resumable(err error, i *deploy.Installation) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\n\nWhat remains is recorded in %s. Run the same command again to resume", err, i.State())
}

// countItems counts a table's items. What DescribeTable says of it is hours old
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TableDescription.html).
func countItems(ctx context.Context, client dynamodb.ScanAPIClient, table string) (int64, error) {
	var n int64
	pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: &table, Select: ddbtypes.SelectCount})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		var none *ddbtypes.ResourceNotFoundException
		if errors.As(err, &none) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("count the items of %s: %w", table, err)
		}
		n += int64(page.Count)
	}
	return n, nil
}

// edge deletes the function at the edge and its logs, and returns what has to be left.
func (c *destroyCmd) edge(ctx context.Context, a account, i *deploy.Installation, function string, std streams, done *destroyed) ([]deploy.Leftover, error) {
	left := i.Settings.Leftover
	cfg := a.cfg.Copy()
	cfg.Region = "us-east-1"
	err := i.DeleteLeftover(ctx, lambda.NewFromConfig(cfg), c.Wait, builder.Pause)
	if errors.Is(err, deploy.ErrReplicas) {
		err = no("everything is deleted except the function %s: AWS removes its replicas at the edge some hours after the distribution. Run precast destroy again then, or use --wait", left.Function)
		return []deploy.Leftover{*left}, err
	}
	none := []deploy.Leftover{}
	if err != nil || function == "" {
		return none, err
	}
	done.EdgeLog, err = deploy.DeleteEdgeLogs(ctx, func(region string) deploy.LogGroups {
		cfg := a.cfg.Copy()
		cfg.Region = region
		return cloudwatchlogs.NewFromConfig(cfg)
	}, function)
	return none, err
}
