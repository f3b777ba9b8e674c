package catalog

import (
	"fmt"
	"strconv"
	"strings"
)

// String says who: what is proven first.
func (a Author) String() string {
	switch {
	case a.Actor != "" && a.Claim != "":
		return a.Actor + " (says " + a.Claim + ")"
	case a.Actor != "":
		return a.Actor
	case a.Claim != "":
		return "says " + a.Claim
	}
	return "unknown"
}

// String says what was done.
func (a Act) String() string {
	if a.Of != 0 {
		return fmt.Sprintf("%s to generation %d, which is published as %d", a.What, a.Of, a.Generation)
	}
	return fmt.Sprintf("%s of generation %d", a.What, a.Generation)
}

// String says what was changed, such as "1.3.0: 10 % -> 50 %".
func (c LogChange) String() string {
	was, now := c.Was, c.Now
	switch {
	case was == nil && now == nil:
		return c.Key.String() + ": nothing"
	case was == nil:
		return fmt.Sprintf("%s: added %s%s", c.Key, now.Version, now.share())
	case now == nil:
		return fmt.Sprintf("%s: removed %s", c.Key, was.Version)
	}
	var parts []string
	differ := func(name, from, to string) {
		if from != to {
			parts = append(parts, fmt.Sprintf("%s%s -> %s", name, from, to))
		}
	}
	switch {
	case was.Version != now.Version:
		parts = append(parts, fmt.Sprintf("%s -> %s%s", was.Version, now.Version, now.share()))
	case was.SHA256 != now.SHA256:
		parts = append(parts, now.Version+" with other content"+now.share())
	default:
		differ(now.Version+": ", was.percent(), now.percent())
	}
	if !was.Short && !now.Short {
		differ("attributes ", list(was.Attrs), list(now.Attrs))
		differ("floors ", list(was.Floors), list(now.Floors))
	}
	if len(parts) == 0 {
		parts = append(parts, now.Version+": other details")
	}
	return c.Key.String() + ": " + strings.Join(parts, ", ")
}

// share says for whom a release is, if not for everybody.
func (s *Summary) share() string {
	if s.Percent == nil {
		return ""
	}
	return " for " + s.percent()
}

func (s *Summary) percent() string {
	if s.Percent == nil {
		return "all devices"
	}
	return strconv.FormatFloat(*s.Percent, 'f', -1, 64) + " %"
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
