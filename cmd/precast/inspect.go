package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/operate/inspect"
)

type inspectCmd struct {
	jsonFlag
	Bundle string   `arg:"" help:"File or http(s) URL of a bundle." placeholder:"FILE|URL"`
	Held   []string `help:"With a URL: ask as a device that has this file, or a file with this digest. May be repeated." placeholder:"FILE|DIGEST"`
}

func (*inspectCmd) Help() string {
	return `Reads the whole bundle and verifies every file against the manifest in it. Exits with 3 if a file does not match,
or if the server sends no bundle because the device has everything (status 304).

Examples:
  precast inspect ota-package.tar.gz
  precast inspect 'http://127.0.0.1:8080/package?cpuArch=armv8'
  precast inspect 'http://127.0.0.1:8080/package?cpuArch=armv8&slot=4711' --held ./os_armv8_1.1.0
  precast inspect --json ota-package.tar.gz | jq .problems`
}

func (c *inspectCmd) Run(ctx context.Context, std streams) error {
	f, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	rep, err := inspect.Bundle(ctx, f)
	if errors.Is(err, inspect.ErrNotBundle) {
		return no("%s: %w", c.Bundle, err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, rep)
	} else {
		err = printInspection(std.out, rep)
	}
	if err == nil && len(rep.Problems) > 0 {
		err = no("the bundle does not agree with its manifest")
	}
	return err
}

// open returns the bundle as a file; one from a URL is downloaded into a temporary file.
func (c *inspectCmd) open(ctx context.Context) (*os.File, error) {
	if !strings.HasPrefix(c.Bundle, "http://") && !strings.HasPrefix(c.Bundle, "https://") {
		if len(c.Held) > 0 {
			return nil, errors.New("--held goes with a URL")
		}
		return files.Open(c.Bundle)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Bundle, nil)
	if err != nil {
		return nil, err
	}
	for _, held := range c.Held {
		digest, err := digestOf(held)
		if err != nil {
			return nil, err
		}
		req.Header.Add("If-None-Match", digest)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil, no("304: the device holds all that it needs")
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, fmt.Errorf("%s answered %s: %s", c.Bundle, resp.Status, strings.TrimSpace(string(text)))
	}
	f, err := os.CreateTemp("", "precast-inspect-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name()) // it lives as long as it is open
	if _, err := io.Copy(f, resp.Body); err != nil {
		f.Close()
		return nil, fmt.Errorf("download %s: %w", c.Bundle, err)
	}
	return f, nil
}

// digestOf returns the digest of a file; what is a digest, it is.
func digestOf(held string) (string, error) {
	if digests, err := edge.ParseTags(held); err == nil && len(digests) == 1 {
		return held, nil
	}
	f, err := files.Open(held)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("read %s: %w", held, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func printInspection(out io.Writer, rep *inspect.Report) error {
	fmt.Fprintf(out, "%s, %s, %d held by the device\n", count(rep.Size, "byte"), count(len(rep.Files), "file"), len(rep.Held))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range rep.Files {
		agrees := "agrees"
		if !f.Agrees {
			agrees = "DIFFERS"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\tsha256 %s\n", f.Name, f.Size, agrees, f.SHA256)
	}
	for _, name := range rep.Held {
		fmt.Fprintf(w, "%s\t\theld\t\n", name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range rep.Problems {
		fmt.Fprintln(out, "problem:", p)
	}
	return nil
}
