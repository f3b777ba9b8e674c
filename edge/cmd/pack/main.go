// Command pack builds the edge: dist/edge.zip for Lambda@Edge, dist/function.js and dist/response.js for
// the viewer functions, all JavaScript without comments and white space. The same sources and settings give the same bytes.
//
//	go run ./edge/cmd/pack -out dist
//	go run ./edge/cmd/pack -out dist -bucket fleet-objects -region eu-central-1
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"github.com/precast-ota/precast/edge/function"
	"github.com/precast-ota/precast/edge/function/shrink"
	"github.com/precast-ota/precast/internal/run/cdn"
	"github.com/precast-ota/precast/internal/run/lambdazip"
)

// config is what edge/shim reads from config.json. What is empty comes with the origin's custom headers,
// or has a default there.
type config struct {
	Bucket         string  `json:"bucket,omitempty"`
	Region         string  `json:"region,omitempty"`
	Endpoint       string  `json:"endpoint,omitempty"`
	RefreshSeconds float64 `json:"refreshSeconds"`
	TimeoutSeconds float64 `json:"timeoutSeconds"`
	// StatementSeconds is the composer's PRECAST_STATEMENT_PERIOD; 0 means a day, in both.
	StatementSeconds float64 `json:"statementSeconds,omitempty"`
}

// Seconds that cdn.Settled assumes: twice the one and once the other.
const (
	maxRefresh = 5
	maxTimeout = 2
)

func main() {
	var c config
	out := flag.String("out", "dist", "folder for edge.zip, function.js and response.js")
	tags := flag.String("tags", "", "build tags of the WebAssembly module; tests use faults")
	flag.StringVar(&c.Bucket, "bucket", "", "bucket to bake in; else the origin's custom headers name it")
	flag.StringVar(&c.Region, "region", "", "the bucket's region")
	flag.StringVar(&c.Endpoint, "endpoint", "", "URL of another S3, addressed by path")
	flag.Float64Var(&c.RefreshSeconds, "refresh", maxRefresh, "seconds after which the index is looked at again; not more than 5")
	flag.Float64Var(&c.TimeoutSeconds, "timeout", maxTimeout, "seconds that fetching the index may take; not more than 2")
	flag.Float64Var(&c.StatementSeconds, "statement-period", 0, "seconds after which statements are signed anew: the composer's PRECAST_STATEMENT_PERIOD, or 0 for a day")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := pack(ctx, c, *tags, *out); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(ctx context.Context, c config, tags, out string) error {
	if (c.Bucket == "") != (c.Region == "") {
		return fmt.Errorf("-bucket and -region go together")
	}
	if c.RefreshSeconds <= 0 || c.RefreshSeconds > maxRefresh || c.TimeoutSeconds <= 0 || c.TimeoutSeconds > maxTimeout {
		return fmt.Errorf("-refresh is more than %d or -timeout more than %d, or one is not above 0: a publish invalidates the CDN %s later, and every instance must have seen the index by then",
			maxRefresh, maxTimeout, cdn.Settled)
	}
	module, err := buildModule(ctx, tags)
	if err != nil {
		return err
	}
	settings, err := json.Marshal(c)
	if err != nil {
		return err
	}
	files := []lambdazip.File{{Name: "edge.wasm", Mode: 0o644, Data: module}, {Name: "config.json", Mode: 0o644, Data: settings}}
	for _, name := range []string{"index.mjs", "handler.mjs", "published.mjs", "go.mjs", "s3.mjs"} {
		data, err := os.ReadFile(filepath.Join("edge", "shim", name))
		if err != nil {
			return fmt.Errorf("read the shim (run this at the top of the repository): %w", err)
		}
		if data, err = shrink.Module(name, data); err != nil {
			return err
		}
		files = append(files, lambdazip.File{Name: name, Mode: 0o644, Data: data})
	}
	z, err := lambdazip.Encode(files...)
	if err != nil {
		return err
	}
	packed := []lambdazip.File{{Name: "edge.zip", Data: z}}
	for _, f := range []lambdazip.File{{Name: "function.js", Data: function.Request}, {Name: "response.js", Data: function.Response}} {
		if f.Data, err = shrink.JavaScript(f.Name, f.Data); err != nil {
			return err
		}
		packed = append(packed, f)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, f := range packed {
		name := filepath.Join(out, f.Name)
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			return err
		}
		fmt.Printf("%x  %s  %d bytes\n", sha256.Sum256(f.Data), name, len(f.Data))
	}
	return nil
}

// buildModule compiles edge/wasm.
func buildModule(ctx context.Context, tags string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "precast-edge-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "edge.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared",
		"-tags", tags, "-ldflags", "-s -w -buildid=", "-o", name, "./edge/wasm")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build edge/wasm: %w", err)
	}
	return os.ReadFile(name)
}
