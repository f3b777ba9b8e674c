package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// event is what is read of a line of Terraform's JSON stream
// (https://developer.hashicorp.com/terraform/internals/machine-readable-ui).
type event struct {
	Type string `json:"type"`
	Hook struct {
		Resource struct {
			Addr string `json:"addr"`
		} `json:"resource"`
		Action  string  `json:"action"`
		IDKey   string  `json:"id_key"`
		ID      string  `json:"id_value"`
		Elapsed float64 `json:"elapsed_seconds"`
	} `json:"hook"`
	Change struct {
		Action string `json:"action"`
	} `json:"change"`
	Diagnostic struct {
		Severity string `json:"severity"`
		Summary  string `json:"summary"`
		Detail   string `json:"detail"`
		Address  string `json:"address"`
	} `json:"diagnostic"`
	// Level and Message are of every line.
	Level   string `json:"@level"`
	Message string `json:"@message"`
}

// Problem is an error as Terraform said it.
type Problem struct {
	Resource string `json:"resource,omitempty"` // as the plan names it
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Resource != "" {
		b.WriteString(p.Resource + ": ")
	}
	b.WriteString(p.Summary)
	for line := range strings.Lines(p.Detail) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString("\n    " + line)
		}
	}
	return b.String()
}

// Progress turns Terraform's JSON stream into a line per resource. It is written to by one goroutine.
type Progress struct {
	out   io.Writer
	total int // changes that the plan has

	rest     []byte // of a line that is not complete
	done     int
	problems []Problem
	busy     map[string]float64 // address -> seconds when it was last spoken of
}

// NewProgress prints to out; total is how many changes there will be.
func NewProgress(out io.Writer, total int) *Progress {
	return &Progress{out: out, total: total, busy: make(map[string]float64)}
}

// Write implements io.Writer for the stream.
func (p *Progress) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		var e event
		if err := json.Unmarshal(line, &e); err == nil { // anything else was not meant for programs
			p.see(e)
		}
		p.rest = rest
	}
}

// speakAgain is how many seconds pass until a resource that takes long is spoken of again.
const speakAgain = 60

func (p *Progress) see(e event) {
	name := short(e.Hook.Resource.Addr)
	if e.Hook.Action == "read" {
		return // of a data source: no change
	}
	switch e.Type {
	case "apply_complete":
		p.done++
		delete(p.busy, name)
		id := ""
		if e.Hook.Action != "delete" && e.Hook.ID != "" {
			id = "  " + e.Hook.ID
		}
		fmt.Fprintf(p.out, "[%*d/%d] %s %s  %s%s\n", len(fmt.Sprint(p.total)), p.done, p.total, past(e.Hook.Action), name, seconds(e.Hook.Elapsed), id)
	case "apply_progress":
		if e.Hook.Elapsed-p.busy[name] >= speakAgain {
			p.busy[name] = e.Hook.Elapsed
			fmt.Fprintf(p.out, "[%*d/%d] still at %s, for %s\n", len(fmt.Sprint(p.total)), p.done, p.total, name, seconds(e.Hook.Elapsed))
		}
	case "apply_errored":
		fmt.Fprintf(p.out, "[%*d/%d] FAILED  %s  %s\n", len(fmt.Sprint(p.total)), p.done, p.total, name, seconds(e.Hook.Elapsed))
	case "diagnostic":
		d := e.Diagnostic
		if d.Severity == "error" {
			p.problems = append(p.problems, Problem{Resource: short(d.Address), Summary: d.Summary, Detail: d.Detail})
			return
		}
		if strings.Contains(d.Summary, "may be incomplete") || strings.Contains(d.Summary, "targeting is in effect") {
			return // of a plan with targets, which is only made where that is meant
		}
		fmt.Fprintf(p.out, "terraform warns: %s\n", Problem{Resource: short(d.Address), Summary: d.Summary})
	}
}

// Done is how many changes are done.
func (p *Progress) Done() int { return p.done }

// ApplyError is an apply that ended before everything was done.
type ApplyError struct {
	Done, Total int
	Problems    []Problem
	Interrupted bool
	err         error
}

func (e *ApplyError) Error() string {
	var b strings.Builder
	if e.Interrupted {
		fmt.Fprintf(&b, "interrupted after %d of %d changes", e.Done, e.Total)
	} else {
		fmt.Fprintf(&b, "terraform failed after %d of %d changes", e.Done, e.Total)
	}
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "\n  %s", p)
	}
	if len(e.Problems) == 0 && e.err != nil && !e.Interrupted {
		fmt.Fprintf(&b, "\n  %v", e.err)
	}
	return b.String()
}

func (e *ApplyError) Unwrap() error { return e.err }

// mentions tells whether an error that Terraform said contains one of the texts.
func (e *ApplyError) mentions(texts ...string) bool {
	for _, p := range e.Problems {
		for _, t := range texts {
			if strings.Contains(p.Summary+" "+p.Detail, t) {
				return true
			}
		}
	}
	return false
}

// failure is the error of an apply with this stream.
func (p *Progress) failure(ctx context.Context, err error) error {
	return &ApplyError{Done: p.done, Total: p.total, Problems: p.problems, Interrupted: ctx.Err() != nil,
		err: errors.Join(ctx.Err(), err)}
}

// creations are the resources that a stream created or began to create, by their addresses, with the
// identifiers that it says.
func creations(stream io.Reader) map[string]string {
	all := make(map[string]string)
	for dec := json.NewDecoder(stream); ; {
		var e event
		if err := dec.Decode(&e); err != nil {
			return all // the end, or a line that a kill cut off: nothing comes after it
		}
		switch {
		case e.Hook.Action != "create":
		case e.Type == "apply_start":
			all[e.Hook.Resource.Addr] = ""
		case e.Type == "apply_complete":
			all[e.Hook.Resource.Addr] = e.Hook.ID
		case e.Type == "apply_errored":
			delete(all, e.Hook.Resource.Addr) // if it exists all the same, it is in the state, tainted
		}
	}
}

// modulePrefix is before every address: the root has nothing but the module.
const modulePrefix = "module.precast."

func short(address string) string { return strings.TrimPrefix(address, modulePrefix) }

func past(action string) string {
	switch action {
	case "create":
		return "created"
	case "update":
		return "changed"
	case "delete":
		return "deleted"
	}
	return action
}

func seconds(s float64) string {
	return (time.Duration(s) * time.Second).String()
}
