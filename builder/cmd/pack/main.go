// Command pack builds the Lambda functions and puts each into a zip: the same sources give the same bytes.
//
//	go run ./builder/cmd/pack -out dist -arch arm64,amd64
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/precast-ota/precast/internal/run/lambdazip"
)

func main() {
	out := flag.String("out", "dist", "folder for the zips")
	arch := flag.String("arch", "arm64,amd64", "architectures, separated by commas")
	functions := flag.String("functions", "enqueuer,builder,composer", "functions, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, a := range strings.Split(*arch, ",") {
		for _, f := range strings.Split(*functions, ",") {
			if err := pack(ctx, f, a, *out); err != nil {
				fmt.Fprintln(os.Stderr, "pack:", err)
				os.Exit(1)
			}
		}
	}
}

// pack builds one function for one architecture into out/FUNCTION-ARCH.zip.
func pack(ctx context.Context, function, arch, out string) error {
	dir, err := os.MkdirTemp("", "precast-pack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// provided.al2023 starts an executable called bootstrap
	// (https://docs.aws.amazon.com/lambda/latest/dg/golang-package.html).
	bootstrap := filepath.Join(dir, "bootstrap")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc",
		"-ldflags", "-s -w -buildid=", "-o", bootstrap, "./builder/cmd/"+function)
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build %s for %s: %w", function, arch, err)
	}
	program, err := os.ReadFile(bootstrap)
	if err != nil {
		return err
	}
	z, err := lambdazip.Encode(lambdazip.File{Name: "bootstrap", Mode: 0o755, Data: program})
	if err != nil {
		return fmt.Errorf("pack %s for %s: %w", function, arch, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	name := filepath.Join(out, function+"-"+arch+".zip")
	if err := os.WriteFile(name, z, 0o644); err != nil {
		return err
	}
	fmt.Printf("%x  %s\n", sha256.Sum256(z), name)
	return nil
}
