package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	cwltypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	tfjson "github.com/hashicorp/terraform-json"
)

// Inventory is what an installation consists of, as its state says.
type Inventory struct {
	Bucket       string   `json:"bucket,omitempty"`
	Tables       []string `json:"tables"`
	Protected    []string `json:"protected,omitempty"` // addresses of the tables that refuse to be deleted
	Distribution string   `json:"distribution,omitempty"`
	Functions    []string `json:"functions"`
	Edge         string   `json:"edge,omitempty"` // the Lambda@Edge function
	EdgeAddress  string   `json:"-"`
	Resources    int      `json:"resources"`
}

// edgeFunction is the Lambda@Edge function's address in the module.
const edgeFunction = modulePrefix + "aws_lambda_function.edge"

// Inventory reads the state.
func (i *Installation) Inventory(ctx context.Context) (Inventory, error) {
	resources, err := i.tf.state(ctx)
	if err != nil {
		return Inventory{}, err
	}
	return inventory(resources), nil
}

func inventory(resources []*tfjson.StateResource) Inventory {
	inv := Inventory{Resources: len(resources), Tables: []string{}, Functions: []string{}}
	for _, r := range resources {
		text := func(name string) string {
			v, _ := r.AttributeValues[name].(string)
			return v
		}
		switch r.Type {
		case "aws_s3_bucket":
			inv.Bucket = text("bucket")
		case "aws_dynamodb_table":
			inv.Tables = append(inv.Tables, text("name"))
			if on, _ := r.AttributeValues["deletion_protection_enabled"].(bool); on {
				inv.Protected = append(inv.Protected, r.Address)
			}
		case "aws_cloudfront_distribution":
			inv.Distribution = text("domain_name")
		case "aws_lambda_function":
			if r.Address == edgeFunction {
				inv.Edge, inv.EdgeAddress = text("function_name"), r.Address
			}
			inv.Functions = append(inv.Functions, text("function_name"))
		}
	}
	slices.Sort(inv.Tables)
	slices.Sort(inv.Functions)
	return inv
}

// Unprotect lets the tables be deleted. The setting itself is kept as it is: it counts again at the next deploy.
func (i *Installation) Unprotect(ctx context.Context, inv Inventory) error {
	if len(inv.Protected) == 0 {
		return nil
	}
	fmt.Fprintln(i.opt.Out, "Turning off the tables' deletion protection.")
	s, err := i.plan(ctx, planOptions{targets: inv.Protected, vars: []string{"deletion_protection=false"}})
	if err != nil {
		return err
	}
	if s.Create+s.Replace+s.Delete > 0 {
		return fmt.Errorf("take deletion protection off: that would do more: %+v", s.Changes)
	}
	return i.Apply(ctx, s)
}

// Own takes what Adopt found into the state, so that it is destroyed with the rest.
func (i *Installation) Own(ctx context.Context, adopted []string) error {
	if len(adopted) == 0 {
		return nil
	}
	s, err := i.plan(ctx, planOptions{targets: adopted})
	if err != nil {
		return err
	}
	if err := i.Apply(ctx, s); err != nil {
		return err
	}
	return i.Settled()
}

// triesToEmpty is how often a bucket is emptied while something keeps writing into it.
const triesToEmpty = 3

// Destroy destroys everything that Terraform knows of, but for the Lambda@Edge function, which is left to
// DeleteLeftover: Terraform would wait for its replicas, and nothing would tell why. The bucket is emptied by
// empty first.
func (i *Installation) Destroy(ctx context.Context, inv Inventory, empty func(ctx context.Context) error) error {
	if inv.Edge != "" {
		// Noted down first: killed in between, it would be in neither place.
		i.Settings.Leftover = &Leftover{Function: inv.Edge, Region: "us-east-1", Address: inv.EdgeAddress}
		if err := i.Save(); err != nil {
			return err
		}
		if err := i.tf.forget(ctx, inv.EdgeAddress); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		if inv.Bucket != "" {
			if err := empty(ctx); err != nil {
				return err
			}
		}
		s, err := i.plan(ctx, planOptions{destroy: true})
		if err != nil {
			return err
		}
		if s.Empty() {
			return nil
		}
		err = i.Apply(ctx, s)
		var failed *ApplyError
		if errors.As(err, &failed) && failed.mentions("BucketNotEmpty") && try < triesToEmpty {
			fmt.Fprintln(i.opt.Out, "Something was written into the bucket meanwhile. Once more:")
			continue
		}
		return err
	}
}

// Remove removes the installation's folder.
func (i *Installation) Remove() error {
	if err := os.RemoveAll(i.opt.Dir); err != nil {
		return fmt.Errorf("remove the folder: %w", err)
	}
	return nil
}

// Versions is a bucket's versions, as S3's client has them.
type Versions interface {
	ListObjectVersions(context.Context, *s3.ListObjectVersionsInput, ...func(*s3.Options)) (*s3.ListObjectVersionsOutput, error)
	DeleteObjects(context.Context, *s3.DeleteObjectsInput, ...func(*s3.Options)) (*s3.DeleteObjectsOutput, error)
}

// Content is how much is in a bucket: current objects and old versions alike.
type Content struct {
	Objects int   `json:"objects"` // versions and delete markers
	Bytes   int64 `json:"bytes"`
}

// Count counts what is in a bucket; nothing, if there is no such bucket.
func Count(ctx context.Context, client Versions, bucket string) (Content, error) {
	var c Content
	err := eachPage(ctx, client, bucket, func(page *s3.ListObjectVersionsOutput) error {
		c.Objects += len(page.Versions) + len(page.DeleteMarkers)
		for _, v := range page.Versions {
			c.Bytes += aws.ToInt64(v.Size)
		}
		return nil
	})
	return c, err
}

// Empty deletes every version and delete marker of a bucket, a page of up to 1,000 at a time, the most that
// one request takes (https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html). seen is told how
// many are gone.
func Empty(ctx context.Context, client Versions, bucket string, seen func(deleted int)) error {
	deleted := 0
	return eachPage(ctx, client, bucket, func(page *s3.ListObjectVersionsOutput) error {
		var ids []s3types.ObjectIdentifier
		for _, v := range page.Versions {
			ids = append(ids, s3types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range page.DeleteMarkers {
			ids = append(ids, s3types.ObjectIdentifier{Key: m.Key, VersionId: m.VersionId})
		}
		if len(ids) == 0 {
			return nil
		}
		out, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &s3types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
		if err != nil {
			return fmt.Errorf("empty bucket %s: %w", bucket, err)
		}
		if len(out.Errors) > 0 {
			e := out.Errors[0]
			return fmt.Errorf("empty bucket %s: objects that were not deleted: %d, the first %s: %s %s", bucket, len(out.Errors), aws.ToString(e.Key), aws.ToString(e.Code), aws.ToString(e.Message))
		}
		deleted += len(ids)
		seen(deleted)
		return nil
	})
}

func eachPage(ctx context.Context, client Versions, bucket string, f func(*s3.ListObjectVersionsOutput) error) error {
	in := &s3.ListObjectVersionsInput{Bucket: &bucket}
	for {
		page, err := client.ListObjectVersions(ctx, in)
		var api smithy.APIError
		if errors.As(err, &api) && api.ErrorCode() == "NoSuchBucket" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list bucket %s: %w", bucket, err)
		}
		if err := f(page); err != nil {
			return err
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		in.KeyMarker, in.VersionIdMarker = page.NextKeyMarker, page.NextVersionIdMarker
	}
}

// FunctionDeleter deletes functions, as Lambda's client does.
type FunctionDeleter interface {
	DeleteFunction(context.Context, *lambda.DeleteFunctionInput, ...func(*lambda.Options)) (*lambda.DeleteFunctionOutput, error)
}

// ErrReplicas: the function cannot be deleted yet, since its replicas at the edge are still there. That takes
// hours (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-edge-delete-replicas.html).
var ErrReplicas = errors.New("its replicas at the edge are still there")

// replicated tells the error of a function with replicas. It has no code of its own
// (https://github.com/hashicorp/terraform-provider-aws/issues/1721).
func replicated(err error) bool {
	var invalid *lambdatypes.InvalidParameterValueException
	return errors.As(err, &invalid) && strings.Contains(invalid.ErrorMessage(), "replicated function")
}

// askAgain is how long the wait for replicas is between two tries.
const askAgain = time.Minute

// DeleteLeftover deletes the Lambda@Edge function that Destroy left, and tries again for as long as wait if it
// has replicas; after that the error is ErrReplicas. sleep waits.
func (i *Installation) DeleteLeftover(ctx context.Context, client FunctionDeleter, wait time.Duration, sleep func(context.Context, time.Duration) error) error {
	l := i.Settings.Leftover
	if l == nil {
		return nil
	}
	for waited := time.Duration(0); ; waited += askAgain {
		_, err := client.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &l.Function})
		var gone *lambdatypes.ResourceNotFoundException
		if err == nil || errors.As(err, &gone) {
			i.Settings.Leftover = nil
			return i.Save()
		}
		if !replicated(err) {
			return fmt.Errorf("delete function %s: %w", l.Function, err)
		}
		if waited >= wait {
			return fmt.Errorf("delete function %s: %w", l.Function, ErrReplicas)
		}
		if waited == 0 {
			fmt.Fprintf(i.opt.Out, "The function %s still has replicas at the edge, which go within hours. Trying again every minute for %s.\n", l.Function, wait)
		}
		if err := sleep(ctx, askAgain); err != nil {
			return err
		}
	}
}

// LogGroups are a region's log groups, as CloudWatch Logs' client has them.
type LogGroups interface {
	DescribeLogGroups(context.Context, *cloudwatchlogs.DescribeLogGroupsInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error)
	DeleteLogGroup(context.Context, *cloudwatchlogs.DeleteLogGroupInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DeleteLogGroupOutput, error)
}

// EdgeLogRegions are the regions that every account has
// (https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html): a Lambda@Edge function
// logs in the one next to the device, in a log group that it makes itself and Terraform does not know
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-functions-logs.html).
func EdgeLogRegions() []string {
	return []string{
		"us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1",
		"eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3",
		"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
	}
}

// DeleteEdgeLogs deletes the logs of a Lambda@Edge function in every region, and returns in how many there
// were any.
func DeleteEdgeLogs(ctx context.Context, client func(region string) LogGroups, function string) (int, error) {
	name := "/aws/lambda/us-east-1." + function
	deleted := 0
	var errs []error
	for _, region := range EdgeLogRegions() {
		c := client(region)
		out, err := c.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &name})
		if err == nil && slices.ContainsFunc(out.LogGroups, func(g cwltypes.LogGroup) bool { return aws.ToString(g.LogGroupName) == name }) {
			if _, err = c.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &name}); err == nil {
				deleted++
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete the edge's logs in %s: %w", region, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return deleted, errors.Join(errs...)
}

// Print says what will be deleted.
func (inv Inventory) Print(w io.Writer, content Content, items map[string]int64, size func(int64) string) {
	if inv.Bucket != "" {
		fmt.Fprintf(w, "  bucket %s (objects and old versions: %d, %s)\n", inv.Bucket, content.Objects, size(content.Bytes))
	}
	for _, t := range inv.Tables {
		fmt.Fprintf(w, "  table %s (items: %d)\n", t, items[t])
	}
	if inv.Distribution != "" {
		fmt.Fprintf(w, "  distribution %s: devices get no more answers\n", inv.Distribution)
	}
	if len(inv.Functions) > 0 {
		fmt.Fprintf(w, "  functions %s, and their logs\n", strings.Join(inv.Functions, ", "))
	}
	fmt.Fprintf(w, "  resources in all: %d\n", inv.Resources)
}
