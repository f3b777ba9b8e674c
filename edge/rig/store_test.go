package rig_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore/types"

	"github.com/precast-ota/precast/edge/rig"
)

const storeARN = "arn:aws:cloudfront::111122223333:key-value-store/x"

// The quotas of the store, at their borders.
func TestStoreQuotas(t *testing.T) {
	t.Parallel()
	full := make(map[string]string) // 5 MiB of keys and values
	for i := range 5 << 10 {
		full[fmt.Sprintf("%04d", i)] = strings.Repeat("v", 1020)
	}
	more := map[string]string{"one more": ""}
	for k, v := range full {
		more[k] = v
	}
	for _, c := range []struct {
		name  string
		items map[string]string
		ok    bool
	}{
		{"nothing", nil, true},
		{"the longest value", map[string]string{"k": strings.Repeat("v", 1024)}, true},
		{"a value too long", map[string]string{"k": strings.Repeat("v", 1025)}, false},
		{"a value of too many bytes", map[string]string{"k": strings.Repeat("é", 513)}, false},
		{"the longest key", map[string]string{strings.Repeat("k", 512): ""}, true},
		{"a key too long", map[string]string{strings.Repeat("k", 513): ""}, false},
		{"an empty key", map[string]string{"": "v"}, false},
		{"a full store", full, true},
		{"more than a full store", more, false},
	} {
		s := rig.NewKeyValueStore(storeARN)
		if err := s.Replace(map[string]string{"before": "x"}); err != nil {
			t.Fatal(err)
		}
		err := s.Replace(c.items)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := s.Items(); c.ok && len(got) != len(c.items) || !c.ok && (len(got) != 1 || got["before"] != "x") {
			t.Errorf("%s: the store has %d keys", c.name, len(got))
		}
	}
}

// The API that the builder writes by: all of an update or nothing, and only over the version that was read.
func TestStoreUpdates(t *testing.T) {
	t.Parallel()
	ctx, s, arn := t.Context(), rig.NewKeyValueStore(storeARN), aws.String(storeARN)
	etag := func() *string {
		out, err := s.DescribeKeyValueStore(ctx, &cloudfrontkeyvaluestore.DescribeKeyValueStoreInput{KvsARN: arn})
		if err != nil {
			t.Fatal(err)
		}
		return out.ETag
	}
	update := func(match *string, deletes []string, puts ...string) error {
		in := &cloudfrontkeyvaluestore.UpdateKeysInput{KvsARN: arn, IfMatch: match}
		for i := 0; i < len(puts); i += 2 {
			in.Puts = append(in.Puts, types.PutKeyRequestListItem{Key: &puts[i], Value: &puts[i+1]})
		}
		for _, d := range deletes {
			in.Deletes = append(in.Deletes, types.DeleteKeyRequestListItem{Key: &d})
		}
		_, err := s.UpdateKeys(context.WithoutCancel(ctx), in)
		return err
	}
	first := etag()
	if err := update(first, nil, "a", "1", "b", "2"); err != nil {
		t.Fatal(err)
	}
	if conflict := new(types.ConflictException); !errors.As(update(first, nil, "a", "3"), &conflict) {
		t.Error("an update over another version was done")
	}
	for name, err := range map[string]error{
		"nothing":          update(etag(), nil),
		"a key not there":  update(etag(), []string{"c"}, "a", "4"),
		"a value too long": update(etag(), []string{"b"}, "a", strings.Repeat("x", 1025)),
		"51 keys":          update(etag(), nil, strings.Split(strings.Repeat("k,v,", 50)+"k,v", ",")...),
		"no version":       update(nil, nil, "a", "5"),
	} {
		if err == nil {
			t.Errorf("%s: it was done", name)
		}
	}
	if got := s.Items(); len(got) != 2 || got["a"] != "1" || got["b"] != "2" {
		t.Errorf("the store has %v", got)
	}
	if err := update(etag(), []string{"b"}, "a", "6"); err != nil {
		t.Fatal(err)
	}
	out, err := s.ListKeys(ctx, &cloudfrontkeyvaluestore.ListKeysInput{KvsARN: arn})
	if err != nil || len(out.Items) != 1 || *out.Items[0].Key != "a" || *out.Items[0].Value != "6" {
		t.Errorf("%v, %v", out.Items, err)
	}
	other := &cloudfrontkeyvaluestore.ListKeysInput{KvsARN: aws.String("another")}
	if _, err := s.ListKeys(ctx, other); err == nil {
		t.Error("another store answered")
	}
}

func TestOneStoreForAFunction(t *testing.T) {
	t.Parallel()
	_, err := rig.Start(t.Context(), rig.Options{Objects: emptyBucket(t), Dist: dist(t, passingFunction, passingHandler), Change: func(d *rig.Distribution) {
		d.Stores = append(d.Stores, rig.NewKeyValueStore("another"))
	}})
	if err == nil || !strings.Contains(err.Error(), "only one") {
		t.Fatal(err)
	}
}

// What a Function reads is what was written last; without a store, or while it is down, reads throw.
func TestFunctionReadsTheStore(t *testing.T) {
	t.Parallel()
	const code = `import cf from 'cloudfront';
		async function handler(event) {
			let said = '';
			try {
				const value = await cf.kvs().get(event.request.querystring.key.value);
				said = value;
			} catch (e) { said = 'threw ' + e.message; }
			return { statusCode: 200, body: said };
		}`
	r := overFunction(t, code, passingHandler, http.NotFound)
	said := func() string { return string(get(t, r, "/package?key=k").body) }
	if got := said(); !strings.HasPrefix(got, "threw KeyNotFound") {
		t.Fatal(got)
	}
	for _, value := range []string{"one", "two\n", "größe"} {
		if err := r.Store.Replace(map[string]string{"k": value, "other": "x"}); err != nil {
			t.Fatal(err)
		}
		if got := said(); got != value {
			t.Fatalf("%q, want %q", got, value)
		}
	}
	r.Store.SetDown(true)
	if got := said(); !strings.HasPrefix(got, "threw") {
		t.Fatal(got)
	}
	r.Store.SetDown(false)
	if got := said(); got != "größe" {
		t.Fatal(got)
	}
	alone := overFunction(t, code, passingHandler, http.NotFound, func(d *rig.Distribution) { d.Stores = nil })
	if got := string(get(t, alone, "/package?key=k").body); !strings.HasPrefix(got, "threw no key value store") {
		t.Fatal(got)
	}
}
