package deploy

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// DistributionLister lists what CloudFront has, as its client does.
type DistributionLister interface {
	ListDistributions(context.Context, *cloudfront.ListDistributionsInput, ...func(*cloudfront.Options)) (*cloudfront.ListDistributionsOutput, error)
	ListCachePolicies(context.Context, *cloudfront.ListCachePoliciesInput, ...func(*cloudfront.Options)) (*cloudfront.ListCachePoliciesOutput, error)
	ListResponseHeadersPolicies(context.Context, *cloudfront.ListResponseHeadersPoliciesInput, ...func(*cloudfront.Options)) (*cloudfront.ListResponseHeadersPoliciesOutput, error)
	ListOriginAccessControls(context.Context, *cloudfront.ListOriginAccessControlsInput, ...func(*cloudfront.Options)) (*cloudfront.ListOriginAccessControlsOutput, error)
}

// MappingLister lists event source mappings, as Lambda's client does.
type MappingLister interface {
	ListEventSourceMappings(context.Context, *lambda.ListEventSourceMappingsInput, ...func(*lambda.Options)) (*lambda.ListEventSourceMappingsOutput, error)
}

// AWSFinder finds resources in AWS.
type AWSFinder struct {
	CloudFront DistributionLister
	Lambda     MappingLister
}

// Find implements Finder. The module gives every distribution a comment that no other installation has.
func (f AWSFinder) Find(ctx context.Context, kind string, attributes map[string]any) (string, error) {
	text := func(name string) string {
		v, _ := attributes[name].(string)
		return v
	}
	switch kind {
	case "aws_cloudfront_distribution":
		return f.distribution(ctx, text("comment"))
	case "aws_cloudfront_cache_policy":
		return f.cachePolicy(ctx, text("name"))
	case "aws_cloudfront_response_headers_policy":
		return f.headersPolicy(ctx, text("name"))
	case "aws_cloudfront_origin_access_control":
		return f.accessControl(ctx, text("name"))
	case "aws_lambda_event_source_mapping":
		return f.mapping(ctx, text("function_name"), text("event_source_arn"))
	}
	return "", fmt.Errorf("find %s: of this type nothing can be found", kind)
}

func (f AWSFinder) distribution(ctx context.Context, comment string) (string, error) {
	in := &cloudfront.ListDistributionsInput{}
	for comment != "" {
		out, err := f.CloudFront.ListDistributions(ctx, in)
		if err != nil {
			return "", err
		}
		if out.DistributionList == nil {
			return "", nil
		}
		for _, d := range out.DistributionList.Items {
			if aws.ToString(d.Comment) == comment {
				return aws.ToString(d.Id), nil
			}
		}
		if in.Marker = out.DistributionList.NextMarker; in.Marker == nil {
			break
		}
	}
	return "", nil
}

func (f AWSFinder) cachePolicy(ctx context.Context, name string) (string, error) {
	in := &cloudfront.ListCachePoliciesInput{Type: cftypes.CachePolicyTypeCustom}
	for {
		out, err := f.CloudFront.ListCachePolicies(ctx, in)
		if err != nil || out.CachePolicyList == nil {
			return "", err
		}
		for _, p := range out.CachePolicyList.Items {
			if aws.ToString(p.CachePolicy.CachePolicyConfig.Name) == name {
				return aws.ToString(p.CachePolicy.Id), nil
			}
		}
		if in.Marker = out.CachePolicyList.NextMarker; in.Marker == nil {
			return "", nil
		}
	}
}

func (f AWSFinder) headersPolicy(ctx context.Context, name string) (string, error) {
	in := &cloudfront.ListResponseHeadersPoliciesInput{Type: cftypes.ResponseHeadersPolicyTypeCustom}
	for {
		out, err := f.CloudFront.ListResponseHeadersPolicies(ctx, in)
		if err != nil || out.ResponseHeadersPolicyList == nil {
			return "", err
		}
		for _, p := range out.ResponseHeadersPolicyList.Items {
			if aws.ToString(p.ResponseHeadersPolicy.ResponseHeadersPolicyConfig.Name) == name {
				return aws.ToString(p.ResponseHeadersPolicy.Id), nil
			}
		}
		if in.Marker = out.ResponseHeadersPolicyList.NextMarker; in.Marker == nil {
			return "", nil
		}
	}
}

func (f AWSFinder) accessControl(ctx context.Context, name string) (string, error) {
	in := &cloudfront.ListOriginAccessControlsInput{}
	for {
		out, err := f.CloudFront.ListOriginAccessControls(ctx, in)
		if err != nil || out.OriginAccessControlList == nil {
			return "", err
		}
		for _, c := range out.OriginAccessControlList.Items {
			if aws.ToString(c.Name) == name {
				return aws.ToString(c.Id), nil
			}
		}
		if in.Marker = out.OriginAccessControlList.NextMarker; in.Marker == nil {
			return "", nil
		}
	}
}

func (f AWSFinder) mapping(ctx context.Context, function, source string) (string, error) {
	if function == "" || source == "" {
		return "", nil // not known yet: it cannot have been begun
	}
	out, err := f.Lambda.ListEventSourceMappings(ctx, &lambda.ListEventSourceMappingsInput{FunctionName: &function, EventSourceArn: &source})
	if err != nil || len(out.EventSourceMappings) == 0 {
		return "", err
	}
	return aws.ToString(out.EventSourceMappings[0].UUID), nil
}
