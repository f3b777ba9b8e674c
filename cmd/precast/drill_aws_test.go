//go:build aws

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// C11: an installation on one machine is restored onto AWS and from there into a folder again; its catalog is larger
// than one transaction of DynamoDB, which has at most 100 items.
func TestRestoreDrillOnAWSC11(t *testing.T) {
	work := t.TempDir()
	from := folder(t, work, "data")
	var items strings.Builder
	if err := os.Mkdir(filepath.Join(work, "many"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		fmt.Fprintf(&items, `,{"app": "part%03d", "env": "prod", "version": "1", "file": "part%03d"}`, i, i)
		if err := os.WriteFile(filepath.Join(work, "many", fmt.Sprintf("part%03d", i)), fmt.Append(nil, "part ", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(work, "many", "catalog.json"), []byte("["+items.String()[1:]+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	from.do("catalog", "import", "many")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	from.live(rand.New(rand.NewPCG(seed, 0)), 10)
	root, key := from.signer()
	env, _ := onAWS(t)
	cloud, devices := place{t, work, env}, newFleet(t, root)
	drill(t, from, cloud, key, devices, "to-aws", 1)
	drill(t, cloud, folder(t, work, "back"), key, devices, "from-aws.tar.gz", 1)
}
