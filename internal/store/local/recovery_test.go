package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// noContext is for what is not the test's own call.
var noContext = context.Background()

// crashCase is a Put that is interrupted after each of its steps.
type crashCase struct {
	name    string
	prepare func(o *Objects) error
	before  string // content before it, "" if there was no object, "!" if it was broken
	options builder.PutOptions
	steps   []string
}

const (
	oldContent = "old content"
	newContent = "new content, which is longer"
)

var (
	stepsOfNew = []string{
		"temp created", "temp synced", "sidecar of 1 written", "sidecar of 1 renamed", "sidecar of 1 synced",
		"data renamed", "data synced",
	}
	stepsOfReplace = []string{
		"temp created", "temp synced", "sidecar of 2 written", "sidecar of 2 renamed", "sidecar of 2 synced",
		"data renamed", "data synced", "sidecar of 1 written", "sidecar of 1 renamed", "sidecar of 1 synced",
	}
)

func crashCases() []crashCase {
	putOld := func(o *Objects) error {
		_, err := o.Put(noContext, layout.IndexKey, bodyOf(oldContent), builder.PutOptions{Meta: map[string]string{"v": "old"}})
		return err
	}
	writeFile := func(o *Objects) error {
		return os.WriteFile(filepath.Join(o.data, layout.IndexKey), []byte("foreign"), 0o644)
	}
	meta := map[string]string{"v": "new"}
	etag := record{Size: int64(len(oldContent)), CRC: checksum(bodyOf(oldContent).CRC64NVME)}.etag()
	return []crashCase{
		{"absent", func(*Objects) error { return nil }, "", builder.PutOptions{Meta: meta, IfAbsent: true}, stepsOfNew},
		{"replaced", putOld, oldContent, builder.PutOptions{Meta: meta}, stepsOfReplace},
		{"matched", putOld, oldContent, builder.PutOptions{Meta: meta, IfMatch: etag}, stepsOfReplace},
		{"foreign", writeFile, "", builder.PutOptions{Meta: meta, IfAbsent: true}, stepsOfNew},
		{"broken", func(o *Objects) error { return errors.Join(putOld(o), writeFile(o)) }, "!", builder.PutOptions{Meta: meta}, stepsOfReplace},
	}
}

// run interrupts the case's Put after step number at (from 0); at = -1 is never.
func (c crashCase) run(o *Objects, at int, interrupt func() error) ([]string, error) {
	var steps []string
	o.did = func(step string) error {
		steps = append(steps, step)
		if len(steps)-1 == at {
			return interrupt()
		}
		return nil
	}
	defer func() { o.did = func(string) error { return nil } }()
	_, err := o.Put(noContext, layout.IndexKey, bodyOf(newContent), c.options)
	return steps, err
}

// check checks what a Put has left that was interrupted after step number at: the object of before,
// or of after if its file had got its name.
func (c crashCase) check(t *testing.T, o *Objects, at int) {
	t.Helper()
	want := c.before
	if at < 0 || at >= slices.Index(c.steps, "data renamed") {
		want = newContent
	}
	switch want {
	case "":
		wantAbsent(t, o, layout.IndexKey)
	case "!":
		if _, err := o.Stat(t.Context(), layout.IndexKey); !errors.Is(err, errMismatch) {
			t.Errorf("Stat of a broken object = %v", err)
		}
	default:
		got, info, err := readObject(o, layout.IndexKey)
		if err != nil || got != want || info.Meta["v"] != want[:3] {
			t.Errorf("the object is %q with %v, %v, want %q", got, info.Meta, err, want)
		}
		// Reading has settled it: one record is left.
		f, err := os.Open(filepath.Join(o.meta, layout.IndexKey))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if sc, err := readSidecar(f); err != nil || len(sc.Candidates) != 1 {
			t.Errorf("after reading, the sidecar is %+v, %v", sc, err)
		}
	}
}

// The order of steps is what recovery relies on: sidecar, then data, then the sidecar settled; each
// synced before the next.
func TestSteps(t *testing.T) {
	t.Parallel()
	for _, c := range crashCases() {
		o, _ := openTempObjects(t)
		if err := c.prepare(o); err != nil {
			t.Fatal(err)
		}
		steps, err := c.run(o, -1, nil)
		if err != nil || !slices.Equal(steps, c.steps) {
			t.Errorf("%s: steps are %q, %v, want %q", c.name, steps, err, c.steps)
		}
		c.check(t, o, -1)
	}
}

// playCrash prepares and runs the crash case that arg names, and is killed at the step that it names.
func playCrash(dir, arg string) error {
	name, step, _ := strings.Cut(arg, " ")
	at, err := strconv.Atoi(step)
	if err != nil {
		return err
	}
	o, err := OpenObjects(dir)
	if err != nil {
		return err
	}
	for _, c := range crashCases() {
		if c.name == name {
			if err := c.prepare(o); err != nil {
				return err
			}
			_, err := c.run(o, at, func() error { killSelf(); return nil })
			return fmt.Errorf("the Put went on: %w", err)
		}
	}
	return fmt.Errorf("no case %q", name)
}

// A process that is killed after any step leaves the old object or the new.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	for _, c := range crashCases() {
		for at, step := range c.steps {
			dir := t.TempDir()
			start(t, "crash", dir, fmt.Sprintf("%s %d", c.name, at)).wantKilled(t)
			s, err := Open(dir, Options{NewCatalog: true})
			if err != nil {
				t.Fatal(err)
			}
			if names := tempNames(t, dir); len(names) != 0 {
				t.Errorf("%s, killed after %s: left are %q", c.name, step, names)
			}
			for _, sub := range []string{"objects", "meta"} {
				entries, err := os.ReadDir(filepath.Join(dir, sub))
				if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != layout.IndexKey {
					t.Errorf("%s has %v, %v", sub, entries, err)
				}
			}
			c.check(t, s.Objects(), at)
			put(t, s.Objects(), layout.IndexKey, newContent, builder.PutOptions{Meta: c.options.Meta})
			c.check(t, s.Objects(), -1)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				t.Fatalf("%s, killed after %s", c.name, step)
			}
		}
	}
}

// A write that fails after any step, and another that follows it and fails after any step, without
// anybody reading in between.
func TestFailedAtEachStepTwice(t *testing.T) {
	t.Parallel()
	errCrash := errors.New("crash")
	for _, c := range crashCases() {
		for first := range c.steps {
			for second := range stepsOfReplace {
				o, dir := openTempObjects(t)
				if err := c.prepare(o); err != nil {
					t.Fatal(err)
				}
				if _, err := c.run(o, first, func() error { return errCrash }); !errors.Is(err, errCrash) {
					t.Fatalf("Put = %v", err)
				}
				const third = "third content"
				steps := 0
				o.did = func(string) error {
					if steps++; steps-1 == second {
						return errCrash
					}
					return nil
				}
				_, err := o.Put(noContext, layout.IndexKey, bodyOf(third), builder.PutOptions{Meta: map[string]string{"v": "thi"}})
				o.did = func(string) error { return nil }
				got, info, readErr := readObject(o, layout.IndexKey)
				switch {
				case err == nil && got != third:
					t.Errorf("%s, %d, %d: acknowledged, but the object is %q, %v", c.name, first, second, got, readErr)
				case readErr == nil && (got != oldContent && got != newContent && got != third || info.Meta["v"] != got[:3]):
					t.Errorf("%s, %d, %d: the object is %q with %v", c.name, first, second, got, info.Meta)
				case errors.Is(readErr, builder.ErrNotExist) && c.before == "":
				case readErr != nil && !(errors.Is(readErr, errMismatch) && c.before == "!"):
					t.Errorf("%s, %d, %d: %v", c.name, first, second, readErr)
				}
				put(t, o, layout.IndexKey, "fourth", builder.PutOptions{})
				wantObject(t, o, layout.IndexKey, "fourth")
				if names := tempNames(t, dir); len(names) != 0 {
					t.Errorf("%s, %d, %d: left are %q", c.name, first, second, names)
				}
			}
		}
	}
}

// A deletion leaves the object or nothing: its file goes first.
func TestDeleteHalfDone(t *testing.T) {
	t.Parallel()
	o, _ := openTempObjects(t)
	put(t, o, layout.IndexKey, oldContent, builder.PutOptions{})
	if err := removeDurably(o.data, filepath.Join(o.data, layout.IndexKey)); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, o, layout.IndexKey)
	if err := o.Delete(t.Context(), layout.IndexKey); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(o.meta, layout.IndexKey)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sidecar is still there: %v", err)
	}
	put(t, o, layout.IndexKey, newContent, builder.PutOptions{IfAbsent: true})
	wantObject(t, o, layout.IndexKey, newContent)
}
