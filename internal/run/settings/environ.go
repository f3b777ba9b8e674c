// Package settings declares the build settings, and reads settings from environment variables. It says everything that
// is wrong with them at once.
package settings

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// prefix begins the name of every variable.
const prefix = "PRECAST_"

// Reader reads variables. A variable that is not set is looked up under the name that it had before all of them began
// with PRECAST_, so that functions run in the environment of an earlier version of the Terraform module.
type Reader struct {
	look func(string) (string, bool)
	log  *slog.Logger
	errs []error
}

// New makes a reader. look is os.LookupEnv, or a test's. The log says which variables are set
// under their old names too.
func New(look func(string) (string, bool), log *slog.Logger) *Reader {
	return &Reader{look: look, log: log}
}

// old is the earlier name of a variable, and the scheme of its values now, where they were plain names.
func old(name string) (earlier, scheme string) {
	switch name {
	case "PRECAST_OBJECTS":
		return "BUCKET", "s3://"
	case "PRECAST_CATALOG":
		return "CATALOG_TABLE", "dynamodb://"
	case "PRECAST_LEDGER":
		return "LEDGER_TABLE", "dynamodb://"
	case "PRECAST_QUEUE":
		return "QUEUE_URL", ""
	case "PRECAST_DEAD_LETTERS":
		return "DEAD_LETTERS_URL", ""
	case "PRECAST_DISTRIBUTION":
		return "DISTRIBUTION_ID", ""
	}
	return strings.TrimPrefix(name, prefix), ""
}

// find returns the value of a variable, and the name under which it is set. An empty value counts as none.
func (r *Reader) find(name string) (value, under string) {
	value, _ = r.look(name)
	earlier, scheme := old(name)
	was, _ := r.look(earlier)
	if was == "" {
		return value, name
	}
	was = scheme + was
	if value == "" {
		return was, earlier
	}
	if was != value {
		r.log.Warn("variable is also set under its old name, which is not used", "variable", name, "old", earlier) // no values: they may be keys
	}
	return value, name
}

func (r *Reader) fail(name string, err error) {
	r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
}

// Text returns a variable, or a default.
func (r *Reader) Text(name, otherwise string) string {
	if v, _ := r.find(name); v != "" {
		return v
	}
	return otherwise
}

// Bucket returns the bucket that a variable names, which must be set.
func (r *Reader) Bucket(name string) string { return r.need(name, Bucket) }

// Table returns the table that a variable names, which must be set.
func (r *Reader) Table(name string) string { return r.need(name, Table) }

// Queue returns the URL of the queue that a variable names, which must be set.
func (r *Reader) Queue(name string) string { return r.need(name, Queue) }

// QueueIfSet returns the URL of the queue that a variable names, or nothing.
func (r *Reader) QueueIfSet(name string) string {
	if v, _ := r.find(name); v == "" {
		return ""
	}
	return r.need(name, Queue)
}

func (r *Reader) need(name string, parse func(string) (string, error)) string {
	text, under := r.find(name)
	if text == "" {
		r.errs = append(r.errs, fmt.Errorf("%s is not set", name))
		return ""
	}
	v, err := parse(text)
	if err != nil {
		r.fail(under, err)
	}
	return v
}

// Duration returns a variable such as 30s, or a default.
func (r *Reader) Duration(name string, otherwise time.Duration) time.Duration {
	s, under := r.find(name)
	if s == "" {
		return otherwise
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		r.fail(under, fmt.Errorf("%q cannot be read: %w", s, err))
		return otherwise
	}
	return v
}

// Build, Signing and CDN return settings.
func (r *Reader) Build() (b Build)     { r.read(reflect.ValueOf(&b).Elem()); return b }
func (r *Reader) Signing() (s Signing) { r.read(reflect.ValueOf(&s).Elem()); return s }
func (r *Reader) CDN() (c CDN)         { r.read(reflect.ValueOf(&c).Elem()); return c }

// read fills a struct of settings in, by its tags.
func (r *Reader) read(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		text, under := r.find(f.Tag.Get("env"))
		if text == "" {
			text = f.Tag.Get("default")
		}
		if err := set(v.Field(i), text); err != nil {
			r.fail(under, fmt.Errorf("%q cannot be read: %w", text, err))
		} else if err := check(f, v.Field(i)); err != nil {
			r.fail(under, err)
		}
	}
}

// set gives a field the value that a text stands for.
func set(field reflect.Value, text string) error {
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
		return nil
	case reflect.Bool:
		on, err := strconv.ParseBool(text)
		field.SetBool(on)
		return err
	case reflect.Int64: // a time.Duration
		d, err := time.ParseDuration(text)
		field.SetInt(int64(d))
		return err
	default:
		n, err := strconv.ParseUint(text, 10, 64)
		field.SetUint(n)
		return err
	}
}

// Err joins what is wrong with the variables read so far.
func (r *Reader) Err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return fmt.Errorf("read environment: %w", errors.Join(r.errs...))
}
