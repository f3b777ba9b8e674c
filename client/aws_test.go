//go:build aws

package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	answers "github.com/precast-ota/precast/internal/run/answer"
	"github.com/precast-ota/precast/internal/run/lambdas"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/kmskey"
)

// The attacks on an installation on AWS, as the stand-in plays it: objects in S3, statements signed in KMS by the
// composer. The key that is stolen is the one in KMS: whoever may use it need not have it.
func TestAttacksAWS(t *testing.T) { playAttacks(t, onAWS(t)) }

// onAWS starts a stand-in for a test; every world gets a bucket and a key of its own in it.
func onAWS(t *testing.T) func(testing.TB) *world {
	t.Helper()
	os.Unsetenv("AWS_CA_BUNDLE")
	ctx := t.Context()
	server, err := standin.Start(ctx, standin.Options{Services: []string{"s3", "kms"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	cfg, err := awsstore.LoadConfig(ctx, config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	buckets, keys := awsstore.NewS3(cfg), kms.NewFromConfig(cfg)
	var worlds atomic.Int64
	return func(t testing.TB) *world {
		t.Helper()
		bucket := fmt.Sprint("bucket-", worlds.Add(1))
		if _, err := buckets.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
			t.Fatal(err)
		}
		objects, err := awsstore.NewObjects(buckets, bucket, awsstore.ObjectsOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made, err := keys.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify})
		if err != nil {
			t.Fatal(err)
		}
		signer, err := kmskey.Open(ctx, keys, aws.ToString(made.KeyMetadata.Arn))
		if err != nil {
			t.Fatal(err)
		}
		return newWorldOn(t, kind{}, &bucketShelf{objects, t}, signer, func(w *world, m *issuer.Issuer) http.Handler {
			log := slog.New(slog.DiscardHandler)
			return &awsFront{w, m, &lambdas.Composer{Objects: w.objects, Composer: builder.NewComposer(w.objects), Log: log, Statements: m}}
		})
	}
}

// bucketShelf is a bucket. Publishing adds to it, and ends with the index.
type bucketShelf struct {
	builder.Objects
	t testing.TB
}

func (b *bucketShelf) write(key string, o object) {
	b.t.Helper()
	body := builder.Body{Reader: bytes.NewReader(o.data), Size: int64(len(o.data))}
	if _, err := b.Put(context.Background(), key, body, builder.PutOptions{Meta: o.meta}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bucketShelf) put(key string, data []byte) { b.write(key, object{data: data}) }

func (b *bucketShelf) set(m memory) {
	b.t.Helper()
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if key != layout.IndexKey {
			b.write(key, m[key])
		}
	}
	b.write(layout.IndexKey, m[layout.IndexKey])
}

// awsFront is what CloudFront does, without a cache: it asks the edge what answers, the bucket for it, and then
// the composer.
type awsFront struct {
	w        *world
	maker    *issuer.Issuer
	composer http.Handler
}

func (f *awsFront) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/")
	held := strings.Join(r.Header.Values("If-None-Match"), ",")
	r.Header.Del("If-None-Match") // the edge has answered for it
	if r.URL.Path == "/package" {
		d := edge.Decide(f.w.pub.Index(), r.URL.RawQuery, held)
		if d.Status != edge.StatusOK {
			answers.Write(rw, d.Response())
			return
		}
		if d.Selection.Payload == edge.Statement {
			d.Epoch = f.maker.Epoch()
		}
		_, key = d.Object()
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawQuery = "/"+key, ""
		r.Header.Set(edge.SelectionHeader, d.Selection.String())
		r.Header.Set(edge.HeldHeader, held)
	}
	kind, err := layout.KindOf(key)
	if err != nil {
		answers.Fail(rw, http.StatusNotFound, "Not found")
		return
	}
	body, _, err := f.w.objects.Get(r.Context(), key, 0, -1)
	if errors.Is(err, builder.ErrNotExist) {
		f.composer.ServeHTTP(rw, r)
		return
	}
	if err != nil {
		answers.Fail(rw, http.StatusBadGateway, err.Error())
		return
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		answers.Fail(rw, http.StatusBadGateway, err.Error())
		return
	}
	rw.Header().Set("Content-Type", layout.HeadersOf(kind).ContentType)
	rw.Header().Set("ETag", `"`+layout.ETag(key)+`"`)
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(data))
}
