package cdn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore/types"
	smithyendpoints "github.com/aws/smithy-go/endpoints"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
)

// KeyValues is the part of the CloudFront KeyValueStore client that is used. An update is done whole or not
// at all, and only if the store's ETag is still the one given: any other update changes it, and makes this one
// a types.ConflictException
// (https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_kvs_UpdateKeys.html).
type KeyValues interface {
	DescribeKeyValueStore(ctx context.Context, in *cloudfrontkeyvaluestore.DescribeKeyValueStoreInput, opt ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.DescribeKeyValueStoreOutput, error)
	ListKeys(ctx context.Context, in *cloudfrontkeyvaluestore.ListKeysInput, opt ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.ListKeysOutput, error)
	UpdateKeys(ctx context.Context, in *cloudfrontkeyvaluestore.UpdateKeysInput, opt ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.UpdateKeysOutput, error)
}

// KeyPrefix is what the keys of the table begin with; a number follows, from 0.
const KeyPrefix = "rollouts."

const (
	// LookEvery is how often a builder looks at a table that was right for the same generation: the API costs
	// a dollar for 1,000 requests (https://aws.amazon.com/cloudfront/pricing/), and plans are made by the clock.
	LookEvery = time.Hour

	updates  = 5  // tries, among other publishes
	pageKeys = 50 // the most (https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_kvs_ListKeys.html)
)

// Table is what became of the table.
type Table int

const (
	TableUnknown Table = iota // it may be that of another generation
	TableKept                 // it was right
	TableWritten              // it is right now
)

// Rollouts is a builder.Observer that keeps the table of rollouts in a KeyValueStore, where the viewer function
// reads it.
type Rollouts struct {
	builder.Silent
	Client  KeyValues
	Store   string // its ARN
	Objects builder.Objects
	// Table makes the table of an index: the values of its keys, in order; see edge.Table. It keeps the quotas: 1 KB a
	// value, 50 keys or 3 MB an update
	// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html#limits-keyvaluestores).
	Table func(ix *index.Index) []string
	Log   *slog.Logger
	Now   func() time.Time

	mu    sync.Mutex
	right uint64    // a generation that the table was right for
	when  time.Time // when it was
}

var _ builder.Observer = (*Rollouts)(nil)

// Planned implements builder.Observer: a plan that a pin keeps from being published tells nothing else, and
// the table that a rollback could not write has to be written some time.
func (r *Rollouts) Planned(ctx context.Context, p builder.Report) {
	if p.Generation > 0 {
		r.observe(ctx, p.Generation, false)
	}
}

// Published implements builder.Observer. A plan that changed nothing mends the table.
func (r *Rollouts) Published(ctx context.Context, p builder.Published) {
	r.observe(ctx, p.Generation, p.Changed)
}

func (r *Rollouts) observe(ctx context.Context, generation uint64, changed bool) {
	log := r.Log.With("store", r.Store, "generation", generation)
	done, err := r.bring(ctx, changed)
	switch {
	case err != nil: // of AWS: it says the ID of the request
		log.ErrorContext(ctx, "write the table of rollouts for what is published", "error", err)
	case done == TableWritten:
		log.InfoContext(ctx, "table of rollouts written")
	}
}

// Bring brings the table to the published index, whichever that is by now. Of several at the same time the
// one with the newest index wins: each reads the store's ETag before it reads the index, so that one
// that writes by an older index does so before the newer one's ETag was read, or not at all. It returns what was
// done.
func (r *Rollouts) Bring(ctx context.Context) (Table, error) { return r.bring(ctx, true) }

// bring is Bring. Unless something has changed, it does not look for what may be left of a table that is to be
// empty: that does no harm, as nobody asks for its rollouts, and to look would be all that the store costs
// those who have none.
func (r *Rollouts) bring(ctx context.Context, changed bool) (Table, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tableCalls)
	defer cancel()
	etag := "" // most often there is nothing to write, and one call less to make
	for range 1 + updates {
		ix, _, err := builder.ReadIndex(ctx, r.Objects)
		if err != nil {
			return TableUnknown, err
		}
		if ix == nil {
			return TableUnknown, errors.New("make the table of rollouts: nothing is published")
		}
		if r.known(ix.Generation) {
			return TableKept, nil
		}
		values := r.Table(ix)
		if len(values) == 0 && !changed {
			return TableKept, nil
		}
		update, err := r.missing(ctx, values)
		if err != nil {
			return TableUnknown, err
		}
		if update == nil {
			r.know(ix.Generation)
			return TableKept, nil
		}
		if etag != "" {
			update.IfMatch = &etag
			_, err := r.Client.UpdateKeys(ctx, update)
			if err == nil {
				r.know(ix.Generation)
				return TableWritten, nil
			}
			if _, conflict := errors.AsType[*types.ConflictException](err); !conflict {
				return TableUnknown, fmt.Errorf("write the table of rollouts: %w", err)
			}
		}
		out, err := r.Client.DescribeKeyValueStore(ctx, &cloudfrontkeyvaluestore.DescribeKeyValueStoreInput{KvsARN: &r.Store})
		if err != nil {
			return TableUnknown, fmt.Errorf("read the version of the table of rollouts: %w", err)
		}
		etag = aws.ToString(out.ETag)
	}
	return TableUnknown, fmt.Errorf("write the table of rollouts: somebody else wrote the store %d times meanwhile", updates)
}

// missing returns what makes the store's keys those of the values; nil: they are.
func (r *Rollouts) missing(ctx context.Context, values []string) (*cloudfrontkeyvaluestore.UpdateKeysInput, error) {
	update := &cloudfrontkeyvaluestore.UpdateKeysInput{KvsARN: &r.Store}
	want := make(map[string]string, len(values))
	for i, v := range values {
		want[fmt.Sprint(KeyPrefix, i)] = v
	}
	in := &cloudfrontkeyvaluestore.ListKeysInput{KvsARN: &r.Store, MaxResults: aws.Int32(pageKeys)}
	for {
		out, err := r.Client.ListKeys(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("read the table of rollouts: %w", err)
		}
		for _, item := range out.Items {
			key := aws.ToString(item.Key)
			if !strings.HasPrefix(key, KeyPrefix) {
				continue
			}
			if value, ok := want[key]; !ok {
				update.Deletes = append(update.Deletes, types.DeleteKeyRequestListItem{Key: &key})
			} else if value == aws.ToString(item.Value) {
				delete(want, key)
			}
		}
		if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
			break
		}
	}
	for i, v := range values {
		key := fmt.Sprint(KeyPrefix, i)
		if _, lacking := want[key]; lacking {
			update.Puts = append(update.Puts, types.PutKeyRequestListItem{Key: &key, Value: &v})
		}
	}
	if len(update.Puts)+len(update.Deletes) == 0 {
		return nil, nil
	}
	return update, nil
}

func (r *Rollouts) known(generation uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.right == generation && r.Now().Sub(r.when) < LookEvery
}

func (r *Rollouts) know(generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.right, r.when = generation, r.Now()
}

// NewKeyValues makes a client. It signs by SigV4a, as the service demands.
func NewKeyValues(cfg aws.Config) *cloudfrontkeyvaluestore.Client {
	return cloudfrontkeyvaluestore.NewFromConfig(cfg, func(o *cloudfrontkeyvaluestore.Options) {
		o.EndpointResolverV2 = resolver{cloudfrontkeyvaluestore.NewDefaultEndpointResolverV2()}
	})
}

// resolver leaves a custom endpoint as it is if it is an IP address: with the account before it, as
// the service has it, it would be no host's name.
type resolver struct {
	cloudfrontkeyvaluestore.EndpointResolverV2
}

func (r resolver) ResolveEndpoint(ctx context.Context, p cloudfrontkeyvaluestore.EndpointParameters) (smithyendpoints.Endpoint, error) {
	e, err := r.EndpointResolverV2.ResolveEndpoint(ctx, p)
	if own, parseErr := url.Parse(aws.ToString(p.Endpoint)); err == nil && parseErr == nil && net.ParseIP(own.Hostname()) != nil {
		e.URI.Host = own.Host
	}
	return e, err
}
