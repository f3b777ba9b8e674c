//go:build aws

package cdn_test

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfrontkeyvaluestore"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/run/cdn"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/test/standin"
)

// The table in a KeyValueStore of AWS's stand-in, by the SDK's own clients.
func TestTheTableOnAWS(t *testing.T) {
	os.Unsetenv("AWS_CA_BUNDLE")
	server, err := standin.Start(t.Context(), standin.Options{Services: []string{"cloudfront", "cloudfront-keyvaluestore"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
	} {
		t.Setenv(name, value)
	}
	cfg, err := awsstore.LoadConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made, err := cloudfront.NewFromConfig(cfg).CreateKeyValueStore(t.Context(), &cloudfront.CreateKeyValueStoreInput{Name: aws.String("rollouts")})
	if err != nil {
		t.Fatal(err)
	}
	arn := aws.ToString(made.KeyValueStore.ARN)
	w := newWorld(t)
	var log strings.Builder
	o, err := cdn.Connect(t.Context(), cdn.Resources{KeyValueStore: arn}, w.objects, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	o.Rollouts.Table = func(ix *index.Index) []string { return w.tables[ix.Generation] }
	client := cdn.NewKeyValues(cfg)
	keys := func() (all []string) {
		t.Helper()
		out, err := client.ListKeys(t.Context(), &cloudfrontkeyvaluestore.ListKeysInput{KvsARN: &arn, MaxResults: aws.Int32(50)})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range out.Items {
			all = append(all, aws.ToString(item.Key)+"="+aws.ToString(item.Value))
		}
		return all
	}
	for i, table := range [][]string{{"a\n+\n", "b\n+\n", "c\n"}, {"a\n+\n", "d\n"}, nil} {
		generation := uint64(i + 1)
		w.publish(generation, table...)
		o.Published(t.Context(), builder.Published{Generation: generation, Sequence: generation, Changed: true})
		var want []string
		for n, v := range table {
			want = append(want, fmt.Sprintf("rollouts.%d=%s", n, v))
		}
		if got := keys(); !slices.Equal(got, want) || strings.Count(log.String(), "table of rollouts written") != i+1 {
			t.Fatalf("generation %d: the store has %q, want %q\n%s", generation, got, want, &log)
		}
	}
	// What somebody else wrote in between is told from other failures.
	stale := "no such version"
	if _, err := client.UpdateKeys(t.Context(), &cloudfrontkeyvaluestore.UpdateKeysInput{KvsARN: &arn, IfMatch: &stale}); err == nil || !strings.Contains(err.Error(), "ConflictException") {
		t.Fatal(err)
	}
}
