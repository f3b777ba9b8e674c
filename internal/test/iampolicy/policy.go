// Package iampolicy checks calls to AWS against IAM policies, for tests: the stand-in for AWS refuses nothing.
package iampolicy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Policy is what somebody may do.
type Policy struct{ Statement []Statement }

// Statement allows actions on resources.
type Statement struct {
	Sid, Effect      string
	Action, Resource []string
	Condition        map[string]map[string]string
}

// Parse reads a policy document. It must be of the kind that the module has: lists of actions without wildcards,
// lists of resources, and no condition but that of conditional writes.
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
			if operator != "Null" || len(keys) != 1 || keys["s3:if-none-match"] != "false" {
				return p, fmt.Errorf("read policy: the condition of statement %s is not understood", s.Sid)
			}
		}
	}
	return p, nil
}

// Need is one action that a call is.
type Need struct {
	Action, Resource string
	IfNoneMatch      bool // it is a conditional write
}

// Allows tells whether a need is allowed.
func (p Policy) Allows(n Need) bool {
	for _, s := range p.Statement {
		if len(s.Condition) > 0 && !n.IfNoneMatch {
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
