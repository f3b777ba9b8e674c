package rig

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore/types"

	"github.com/precast-ota/precast/internal/run/cdn"
)

// Quotas of a key value store (cloudfront-limits.html, limits-keyvaluestores).
const (
	maxStoreKey    = 512     // bytes
	maxStoreValue  = 1 << 10 // bytes
	maxStore       = 5 << 20 // bytes, of keys and values
	maxStoreKeys   = 50      // in one update
	maxStoreUpdate = 3 << 20 // bytes
)

// KeyValueStore is a CloudFront KeyValueStore: what the viewer-request Function reads, and the API to write it.
// A write is seen at once; on CloudFront it takes seconds to be everywhere.
type KeyValueStore struct {
	arn string

	mu      sync.Mutex
	items   map[string]string
	version int
	down    bool
}

var _ cdn.KeyValues = (*KeyValueStore)(nil)

// NewKeyValueStore returns an empty store.
func NewKeyValueStore(arn string) *KeyValueStore {
	return &KeyValueStore{arn: arn, items: make(map[string]string)}
}

// ARN names the store.
func (s *KeyValueStore) ARN() string { return s.arn }

// SetDown lets every read of the function fail, or no more.
func (s *KeyValueStore) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Items returns what is in the store.
func (s *KeyValueStore) Items() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.items)
}

// Replace makes the store have these items and nothing else.
func (s *KeyValueStore) Replace(items map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(maps.Clone(items))
}

func (s *KeyValueStore) replace(items map[string]string) error {
	size := 0
	for k, v := range items {
		switch {
		case len(k) == 0 || len(k) > maxStoreKey:
			return invalid("a key has %d bytes, and may have 1 to %d", len(k), maxStoreKey)
		case len(v) > maxStoreValue:
			return invalid("the value of %s has %d bytes, more than %d", k, len(v), maxStoreValue)
		}
		size += len(k) + len(v)
	}
	if size > maxStore {
		return &types.ServiceQuotaExceededException{Message: aws.String(fmt.Sprintf("the store would have %d bytes, more than %d", size, maxStore))}
	}
	s.items = items
	s.version++
	return nil
}

func invalid(format string, args ...any) error {
	return &types.ValidationException{Message: aws.String(fmt.Sprintf(format, args...))}
}

// seen is the store as host.js has it.
func (s *KeyValueStore) seen() map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]any{"content": maps.Clone(s.items), "down": s.down}
}

func (s *KeyValueStore) etag() *string { return aws.String(fmt.Sprintf("KV%d", s.version)) }

func (s *KeyValueStore) check(arn *string) error {
	if aws.ToString(arn) != s.arn {
		return &types.ResourceNotFoundException{Message: arn}
	}
	return nil
}

// DescribeKeyValueStore implements cdn.KeyValues.
func (s *KeyValueStore) DescribeKeyValueStore(_ context.Context, in *cloudfrontkeyvaluestore.DescribeKeyValueStoreInput, _ ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.DescribeKeyValueStoreOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(in.KvsARN); err != nil {
		return nil, err
	}
	return &cloudfrontkeyvaluestore.DescribeKeyValueStoreOutput{KvsARN: in.KvsARN, ETag: s.etag(), ItemCount: aws.Int32(int32(len(s.items)))}, nil
}

// ListKeys implements cdn.KeyValues. All keys are one page.
func (s *KeyValueStore) ListKeys(_ context.Context, in *cloudfrontkeyvaluestore.ListKeysInput, _ ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.ListKeysOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(in.KvsARN); err != nil {
		return nil, err
	}
	out := &cloudfrontkeyvaluestore.ListKeysOutput{}
	for _, key := range slices.Sorted(maps.Keys(s.items)) {
		out.Items = append(out.Items, types.ListKeysResponseListItem{Key: &key, Value: aws.String(s.items[key])})
	}
	return out, nil
}

// UpdateKeys implements cdn.KeyValues.
func (s *KeyValueStore) UpdateKeys(_ context.Context, in *cloudfrontkeyvaluestore.UpdateKeysInput, _ ...func(*cloudfrontkeyvaluestore.Options)) (*cloudfrontkeyvaluestore.UpdateKeysOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(in.KvsARN); err != nil {
		return nil, err
	}
	if aws.ToString(in.IfMatch) != *s.etag() {
		return nil, &types.ConflictException{Message: aws.String("the store's ETag is another one")}
	}
	if n := len(in.Puts) + len(in.Deletes); n == 0 || n > maxStoreKeys {
		return nil, invalid("%d keys in one update, of 1 to %d", n, maxStoreKeys)
	}
	next, size := maps.Clone(s.items), 0
	for _, p := range in.Puts {
		next[aws.ToString(p.Key)] = aws.ToString(p.Value)
		size += len(aws.ToString(p.Key)) + len(aws.ToString(p.Value))
	}
	for _, d := range in.Deletes {
		if _, ok := next[aws.ToString(d.Key)]; !ok {
			return nil, &types.ResourceNotFoundException{Message: d.Key}
		}
		delete(next, aws.ToString(d.Key))
	}
	if size > maxStoreUpdate {
		return nil, invalid("%d bytes in one update, more than %d", size, maxStoreUpdate)
	}
	if err := s.replace(next); err != nil {
		return nil, err
	}
	return &cloudfrontkeyvaluestore.UpdateKeysOutput{ETag: s.etag(), ItemCount: aws.Int32(int32(len(next)))}, nil
}
