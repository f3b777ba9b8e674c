// Package iampolicy checks calls to AWS against IAM policies, for tests: the stand-in for AWS refuses nothing.
package iampolicy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Policy is what somebody may do.
type Policy struct{ Statement []Statement }

// Statement allows actions on resources.
type Statement struct {
	Sid, Effect      string
	Action, Resource []string
	Condition        map[string]map[string]values
}

// values are one text or a list of texts.
type values []string

func (v *values) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*v = values{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(v))
}

// Operators and keys of the conditions that are understood.
const (
	ifNoneMatch = "Null s3:if-none-match"
	leadingKeys = "ForAllValues:StringLike dynamodb:LeadingKeys"
)

// Parse reads a policy document. It must be of the kind that the module has: lists of actions without wildcards,
// lists of resources, and no conditions but those of conditional writes and of a table's partition keys.
func Parse(document string) (Policy, error) {
	var p Policy
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		return p, fmt.Errorf("read policy: %w", err)
	}
	for _, s := range p.Statement {
		if s.Effect != "Allow" || len(s.Action) == 0 || len(s.Resource) == 0 || strings.Contains(strings.Join(s.Action, ""), "*") {
			return p, fmt.Errorf("read policy: statement %s is not understood", s.Sid)
		}
		for operator, keys := range s.Condition {
			for key, wanted := range keys {
				if name := operator + " " + key; name != leadingKeys && (name != ifNoneMatch || !slices.Equal(wanted, values{"false"})) {
					return p, fmt.Errorf("read policy: the condition of statement %s is not understood", s.Sid)
				}
			}
		}
	}
	return p, nil
}

// Need is one action that a call is.
type Need struct {
	Action, Resource string
	IfNoneMatch      bool   // it is a conditional write
	LeadingKey       string // of an item of the ledger
}

// Allows tells whether a need is allowed.
func (p Policy) Allows(n Need) bool {
	for _, s := range p.Statement {
		if !s.meets(n) {
			continue
		}
		for _, a := range s.Action {
			if !strings.EqualFold(a, n.Action) {
				continue
			}
			for _, r := range s.Resource {
				if matches(r, n.Resource) {
					return true
				}
			}
		}
	}
	return false
}

// meets tells whether a need meets the statement's conditions.
func (s Statement) meets(n Need) bool {
	for operator, keys := range s.Condition {
		for key, wanted := range keys {
			met := n.IfNoneMatch
			if operator+" "+key == leadingKeys {
				met = slices.ContainsFunc(wanted, func(pattern string) bool { return matches(pattern, n.LeadingKey) })
			}
			if !met {
				return false
			}
		}
	}
	return true
}

// matches: * is any number of characters, slashes among them
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html).
func matches(pattern, resource string) bool {
	expr := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
	return regexp.MustCompile("^" + expr + "$").MatchString(resource)
}

// Actions are the actions of a policy's statements.
func (p Policy) Actions() map[string]bool {
	all := make(map[string]bool)
	for _, s := range p.Statement {
		for _, a := range s.Action {
			all[a] = true
		}
	}
	return all
}
