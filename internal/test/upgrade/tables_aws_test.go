//go:build aws

package upgrade

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/catalog"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/store/local"
)

// load puts the frozen items into the tables, and the frozen objects into the bucket.
func (c cloud) load(f frozen, data string) {
	c.t.Helper()
	for _, table := range []string{"catalog", "ledger"} {
		var scan struct{ Items []json.RawMessage }
		if err := json.Unmarshal(f.read(table+".json"), &scan); err != nil || len(scan.Items) == 0 {
			c.t.Fatalf("%s: %d items, %v", table, len(scan.Items), err)
		}
		for _, item := range scan.Items {
			c.call("PutItem", fmt.Sprintf(`{"TableName":%q,"Item":%s}`, table, item))
		}
	}
	objects, err := local.OpenObjects(data)
	if err != nil {
		c.t.Fatal(err)
	}
	bucket, err := awsstore.NewObjects(c.clients.S3, "packages", awsstore.ObjectsOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	err = objects.List(c.t.Context(), "", func(o builder.ObjectInfo) error {
		content, info, err := builder.ReadAll(c.t.Context(), objects, o.Key, 1<<20)
		if err != nil {
			return err
		}
		_, err = bucket.Put(c.t.Context(), o.Key, builder.Body{Reader: bytes.NewReader(content), Size: int64(len(content))}, builder.PutOptions{Meta: info.Meta})
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// S13: an earlier program's installation on AWS is the same to this one: it lists and builds, and its first change of
// the catalog takes the tables up. Others write the table as before; a program of an earlier version does not.
func TestS13TablesOnAWS(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dir := f.installation()
		aws := newCloud(t)
		aws.load(f, filepath.Join(dir, "data"))
		c := f.commands(dir)
		c.env = append(c.env, aws.env...)
		version := func() string {
			t.Helper()
			var got struct {
				Item struct{ Version struct{ N string } }
			}
			if err := json.Unmarshal(aws.call("GetItem", `{"TableName":"ledger","Key":{"id":{"S":"log"}}}`), &got); err != nil {
				t.Fatal(err)
			}
			return got.Item.Version.N
		}
		c.says(0, "catalog list", "os_armv8", "for 50 % of the devices with a slot (salt spring)", "1.1.0")
		c.says(3, "status", "pinned: a holiday")
		if v := version(); v != "" {
			t.Errorf("without a change the version has become %q", v)
		}
		c.says(0, "unpin", "published") // which is in the log, too
		c.says(0, "fsck", "it is complete")
		c.says(0, "catalog rollout os_armv8 100")
		if v := version(); v != strconv.Itoa(catalog.Version) {
			t.Errorf("the version is %q, want %d", v, catalog.Version)
		}
		c.says(0, "build")
		c.says(0, "status", "it is what the catalog says")

		foreign := `{"TableName":"catalog","Item":{"app":{"S":"foreign"},"env":{"S":"prod"},"version":{"S":"1"},"url":{"S":"https://example.com/f"},"md5":{"S":"x"}}}`
		aws.call("PutItem", foreign)
		c.says(0, "catalog list", "foreign")

		aws.call("UpdateItem", fmt.Sprintf(`{"TableName":"ledger","Key":{"id":{"S":"log"}},"UpdateExpression":"SET #v = :v","ExpressionAttributeNames":{"#v":"version"},"ExpressionAttributeValues":{":v":{"N":"%d"}}}`, catalog.Version+1))
		scan := aws.call("Scan", `{"TableName":"catalog"}`)
		refusal := fmt.Sprintf("the catalog is stored in version %d, and this program knows versions up to %d: a newer precast is needed", catalog.Version+1, catalog.Version)
		for _, line := range []string{"catalog list", "catalog rm foreign", "catalog put x " + filepath.Join(root, "go.mod") + " --version 1", "status", "history", "build",
			"rollback 1", "pin", "unpin", "fsck --repair", "gc --delete", "keys publish", "serve --addr 127.0.0.1:0"} {
			c.says(1, line, refusal)
		}
		if !bytes.Equal(aws.call("Scan", `{"TableName":"catalog"}`), scan) {
			t.Error("the refused commands have changed the table")
		}
		aws.call("PutItem", foreign) // people with the console are not stopped
	})
}
