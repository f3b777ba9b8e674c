// Command table writes the tables of docs/reliability.md from runs of the tests: `make reliability`.
//
//	go test -json $(go run ./internal/test/faults/cmd/table -args) | go run ./internal/test/faults/cmd/table -doc docs/reliability.md
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/precast-ota/precast/internal/test/faults/suite"
)

func main() {
	args := flag.Bool("args", false, "print go test's arguments, and nothing else")
	doc := flag.String("doc", "", "the document to write to")
	flag.Parse()
	if *args {
		fmt.Println(strings.Join(suite.Arguments(), " "))
		return
	}
	if err := write(*doc, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// write reads runs, those of files or the standard input's, and replaces the document's tables. That a test has not
// passed is written down, and an error.
func write(doc string, files []string) error {
	run := make(suite.Run)
	if len(files) == 0 {
		if err := run.Read("github.com/precast-ota/precast", os.Stdin); err != nil {
			return err
		}
	}
	for _, name := range files {
		if err := read(run, name); err != nil {
			return err
		}
	}
	old, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	text, err := suite.Replace(string(old), run.Table())
	if err != nil {
		return fmt.Errorf("write %s: %w", doc, err)
	}
	if err := os.WriteFile(doc, []byte(text), 0o644); err != nil {
		return err
	}
	if failed := run.Failed(suite.Rows()); len(failed) > 0 {
		return errors.New("not passed:\n" + strings.Join(failed, "\n"))
	}
	return nil
}

func read(run suite.Run, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return run.Read("github.com/precast-ota/precast", io.Reader(f))
}
