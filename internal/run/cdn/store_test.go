package cdn_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore/types"
)

// The quotas of a KeyValueStore
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html#limits-keyvaluestores).
const (
	maxKey    = 512
	maxValue  = 1024
	maxKeys   = 50
	maxUpdate = 3 << 20
)

const storeARN = "arn:aws:cloudfront::123456789012:key-value-store/8562a61f-caba-2845-9d99-b97d3ae5d3c1"

// store is a KeyValueStore that keeps the contract of the API, and can fail.
type store struct {
	items   map[string]string
	version int
	page    int // keys that ListKeys gives at most
	calls   []string
	updates int
	// before is called at the beginning of every call with its number, after at its end: an error is what
	// the caller gets, whatever has been done.
	before, after func(call int) error
}

func newStore() *store { return &store{items: map[string]string{}, page: 50} }

var errStore = errors.New("https response error StatusCode: 500, RequestID: 7f2c, InternalServerException")

func (s *store) begin(ctx context.Context, name string, arn *string) (int, error) {
	n := len(s.calls)
	s.calls = append(s.calls, name)
	if err := ctx.Err(); err != nil {
		return n, err
	}
	if aws.ToString(arn) != storeARN {
		return n, &types.ResourceNotFoundException{Message: arn}
	}
	if s.before == nil {
		return n, nil
	}
	return n, s.before(n)
}

func (s *store) end(n int) error {
	if s.after == nil {
		return nil
	}
	return s.after(n)
}

func (s *store) etag() string { return fmt.Sprint("version ", s.version) }

func (s *store) DescribeKeyValueStore(ctx context.Context, in *cloudfrontkeyvaluestore.DescribeKeyValueStoreInput, _ ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.DescribeKeyValueStoreOutput, error) {
	n, err := s.begin(ctx, "describe", in.KvsARN)
	if err != nil {
		return nil, err
	}
	out := &cloudfrontkeyvaluestore.DescribeKeyValueStoreOutput{ETag: aws.String(s.etag()), ItemCount: aws.Int32(int32(len(s.items)))}
	return out, s.end(n)
}

func (s *store) ListKeys(ctx context.Context, in *cloudfrontkeyvaluestore.ListKeysInput, _ ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.ListKeysOutput, error) {
	n, err := s.begin(ctx, "list", in.KvsARN)
	if err != nil {
		return nil, err
	}
	if m := aws.ToInt32(in.MaxResults); m < 1 || m > 50 {
		return nil, &types.ValidationException{Message: aws.String("MaxResults")}
	}
	out := &cloudfrontkeyvaluestore.ListKeysOutput{}
	for _, key := range slices.Sorted(maps.Keys(s.items)) {
		if key <= aws.ToString(in.NextToken) {
			continue
		}
		if len(out.Items) == min(s.page, int(*in.MaxResults)) {
			out.NextToken = out.Items[len(out.Items)-1].Key
			break
		}
		out.Items = append(out.Items, types.ListKeysResponseListItem{Key: aws.String(key), Value: aws.String(s.items[key])})
	}
	return out, s.end(n)
}

func (s *store) UpdateKeys(ctx context.Context, in *cloudfrontkeyvaluestore.UpdateKeysInput, _ ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.UpdateKeysOutput, error) {
	n, err := s.begin(ctx, "update", in.KvsARN)
	if err != nil {
		return nil, err
	}
	if aws.ToString(in.IfMatch) != s.etag() {
		return nil, &types.ConflictException{Message: aws.String("the ETag is another one")}
	}
	if k := len(in.Puts) + len(in.Deletes); k == 0 || k > maxKeys {
		return nil, &types.ValidationException{Message: aws.String(fmt.Sprint(k, " keys"))}
	}
	next, size := maps.Clone(s.items), 0
	for _, p := range in.Puts {
		if len(*p.Key) == 0 || len(*p.Key) > maxKey || len(*p.Value) > maxValue {
			return nil, &types.ValidationException{Message: aws.String(fmt.Sprint(len(*p.Value), " bytes"))}
		}
		next[*p.Key] = *p.Value
		size += len(*p.Key) + len(*p.Value)
	}
	for _, d := range in.Deletes {
		if _, ok := next[*d.Key]; !ok {
			return nil, &types.ResourceNotFoundException{Message: d.Key}
		}
		delete(next, *d.Key)
		size += len(*d.Key)
	}
	if size > maxUpdate {
		return nil, &types.ServiceQuotaExceededException{Message: aws.String("size")}
	}
	s.items, s.version = next, s.version+1
	s.updates++
	return &cloudfrontkeyvaluestore.UpdateKeysOutput{ETag: aws.String(s.etag())}, s.end(n)
}
