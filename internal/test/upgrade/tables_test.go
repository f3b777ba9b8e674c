package upgrade

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/precast-ota/precast/internal/format/catalog"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/local"
)

// comparable leaves out of items what differs between two catalogs of one story: times, and salts drawn at random.
func comparable(items []catalog.Item) []catalog.Item {
	items = catalog.Apply(items, nil) // sorted
	for i := range items {
		items[i] = items[i].Clone()
		leaveOut(&items[i])
	}
	return items
}

func leaveOut(it *catalog.Item) {
	it.Changed = time.Time{}
	if it.Rollout != nil && it.Rollout.Salt != "spring" {
		it.Rollout.Salt = ""
	}
	if it.Previous != nil {
		leaveOut(it.Previous)
	}
	for _, releases := range [][]catalog.Item{it.Floors, it.Passed} {
		for i := range releases {
			leaveOut(&releases[i])
		}
	}
}

// An earlier program's tables are the same catalog to this one as its data folder, which has had the same releases.
func TestTables(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
			switch operation {
			case "Scan":
				_, _ = w.Write(f.read("catalog.json"))
			default: // no such item: the earlier ledger has what it has for every build
				fmt.Fprint(w, "{}")
			}
		}))
		defer server.Close()
		clients := awsstore.NewClients(aws.Config{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")})
		c, err := awsstore.NewCatalog(clients.DynamoDB, "catalog", "ledger", awsstore.CatalogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		store, err := local.Open(f.installation("data")+"/data", local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		want, err := store.Catalog().Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if problems := catalog.Check(got); len(problems) > 0 {
			t.Error(problems)
		}
		if !slices.ContainsFunc(got, func(it catalog.Item) bool {
			return it.Rollout != nil && len(it.Floors) > 0 && len(it.Floors[0].Passed) > 0 && !it.Changed.IsZero()
		}) {
			t.Errorf("no item has everything: %+v", got)
		}
		if got, want := comparable(got), comparable(want); !reflect.DeepEqual(got, want) {
			t.Errorf("the table has\n%s\nthe folder\n%s", text(t, got), text(t, want))
		}
	})
}

func text(t *testing.T, items []catalog.Item) string {
	t.Helper()
	var out bytes.Buffer
	if err := catalog.Encode(&out, items); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
