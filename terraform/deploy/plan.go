package deploy

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// Action is what happens to a resource.
type Action string

const (
	Create  Action = "create"
	Update  Action = "update"
	Replace Action = "replace"
	Delete  Action = "delete"
	// Import takes what exists into the state, and leaves it as it is.
	Import Action = "import"
)

// sign is what Terraform's own plans mark it with.
func (a Action) sign() string {
	return map[Action]string{Create: "  +", Update: "  ~", Replace: "-/+", Delete: "  -", Import: "  ="}[a]
}

// Change is what happens to one resource.
type Change struct {
	Resource   string   `json:"resource"`
	Action     Action   `json:"action"`
	Attributes []string `json:"attributes,omitempty"` // that differ, of an update or a replacement
	// LosesData: what is in it is gone afterwards.
	LosesData bool `json:"losesData,omitempty"`
}

// Summary is what a plan says.
type Summary struct {
	Create  int      `json:"create"`
	Update  int      `json:"update"`
	Replace int      `json:"replace"`
	Delete  int      `json:"delete"`
	Import  int      `json:"import"` // some of them may be updated as well
	Changes []Change `json:"changes"`
}

// Total counts the changes as Terraform's stream does: a replacement is two.
func (s Summary) Total() int { return s.Create + s.Update + 2*s.Replace + s.Delete }

// Empty: there is nothing to do.
func (s Summary) Empty() bool { return len(s.Changes) == 0 }

// DataLoss lists the resources whose contents would be gone.
func (s Summary) DataLoss() []string {
	var all []string
	for _, c := range s.Changes {
		if c.LosesData {
			all = append(all, c.Resource)
		}
	}
	return all
}

// holdsData are the resources that have something in them which no plan brings back.
func holdsData(kind string) bool { return kind == "aws_s3_bucket" || kind == "aws_dynamodb_table" }

func summarize(p *tfjson.Plan) Summary {
	s := Summary{Changes: []Change{}}
	for _, r := range p.ResourceChanges {
		if r.Mode != tfjson.ManagedResourceMode || r.Change == nil {
			continue
		}
		c := Change{Resource: short(r.Address)}
		imported := r.Change.Importing != nil
		if imported {
			s.Import++
		}
		switch a := r.Change.Actions; {
		case a.Create():
			c.Action = Create
			s.Create++
		case a.Update():
			c.Action = Update
			s.Update++
		case a.Replace():
			c.Action = Replace
			s.Replace++
		case a.Delete():
			c.Action = Delete
			s.Delete++
		case imported:
			c.Action = Import
		default:
			continue
		}
		if c.Action == Update || c.Action == Replace {
			c.Attributes = differing(r.Change)
		}
		c.LosesData = holdsData(r.Type) && (c.Action == Replace || c.Action == Delete)
		s.Changes = append(s.Changes, c)
	}
	return s
}

// differing are the attributes that have another value afterwards, or one that is not known yet. Of a
// replacement they are those that make it one, if the plan says.
func differing(c *tfjson.Change) []string {
	var names []string
	if c.Actions.Replace() {
		for _, path := range c.ReplacePaths {
			if steps, ok := path.([]any); ok && len(steps) > 0 {
				names = append(names, fmt.Sprint(steps[0]))
			}
		}
	}
	if len(names) == 0 {
		before, _ := c.Before.(map[string]any)
		after, _ := c.After.(map[string]any)
		unknown, _ := c.AfterUnknown.(map[string]any)
		for name, v := range after {
			if !reflect.DeepEqual(v, before[name]) {
				names = append(names, name)
			}
		}
		for name, v := range unknown {
			if v == true {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Print writes the counts and a line per resource.
func (s Summary) Print(w io.Writer) {
	if s.Empty() {
		fmt.Fprintln(w, "There is nothing to change.")
		return
	}
	fmt.Fprintf(w, "%d to create, %d to change, %d to replace, %d to delete", s.Create, s.Update, s.Replace, s.Delete)
	if s.Import > 0 {
		fmt.Fprintf(w, ", %d to take over as they are there", s.Import)
	}
	fmt.Fprintln(w)
	for _, c := range s.Changes {
		fmt.Fprintf(w, "%s %s", c.Action.sign(), c.Resource)
		if len(c.Attributes) > 0 {
			fmt.Fprintf(w, "  (%s)", strings.Join(c.Attributes, ", "))
		}
		fmt.Fprintln(w)
	}
	if lost := s.DataLoss(); len(lost) > 0 {
		fmt.Fprintf(w, "\n!!! EVERYTHING IN THESE WILL BE LOST: %s\n", strings.Join(lost, ", "))
	}
}
