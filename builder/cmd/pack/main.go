// Command pack builds the Lambda functions and puts each into a zip: the same sources give the same bytes.
//
//	go run ./builder/cmd/pack -out dist -arch arm64,amd64
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/mholt/archives"
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
	var z bytes.Buffer
	format := archives.Zip{Compression: 8} // deflate (APPNOTE.TXT 4.4.5)
	if err := format.Archive(ctx, &z, []archives.FileInfo{{
		FileInfo:      entry{int64(len(program))},
		NameInArchive: "bootstrap",
		Open:          func() (fs.File, error) { return file{bytes.NewReader(program)}, nil },
	}}); err != nil {
		return fmt.Errorf("zip %s for %s: %w", function, arch, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	name := filepath.Join(out, function+"-"+arch+".zip")
	if err := os.WriteFile(name, z.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Printf("%x  %s\n", sha256.Sum256(z.Bytes()), name)
	return nil
}

// entry describes the one file of a zip.
type entry struct{ size int64 }

func (e entry) Name() string      { return "bootstrap" }
func (e entry) Size() int64       { return e.size }
func (e entry) Mode() fs.FileMode { return 0o755 }

// The earliest time that a zip can state.
func (e entry) ModTime() time.Time { return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) }
func (e entry) IsDir() bool        { return false }
func (e entry) Sys() any           { return nil }

type file struct{ *bytes.Reader }

func (f file) Stat() (fs.FileInfo, error) { return entry{f.Size()}, nil }
func (f file) Close() error               { return nil }

var _ io.Reader = file{}
