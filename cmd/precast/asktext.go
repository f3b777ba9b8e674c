package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/precast-ota/precast/internal/operate/ask"
)

// printAsked tells people what a device gets.
func printAsked(w io.Writer, rep *ask.Report) error {
	slot := "without a slot"
	if rep.Slot != nil {
		slot = fmt.Sprintf("with slot %d", *rep.Slot)
	}
	query := rep.Query
	if query == "" {
		query = "no query"
	}
	fmt.Fprintf(w, "%s, %s", query, slot)
	if n := len(rep.Held); n > 0 {
		fmt.Fprintf(w, ", holding %s", count(n, "file"))
		if other := others(rep.Held, rep.Items); other > 0 && len(rep.Items) > 0 {
			fmt.Fprintf(w, ", %d of them not in this list", other)
		}
	}
	if rep.Headers == nil && rep.Generation > 0 {
		fmt.Fprintf(w, "; generation %d", rep.Generation)
		if rep.Pin != "" {
			fmt.Fprint(w, ", which is pinned")
		}
	}
	fmt.Fprintf(w, "\n%s\n", answerText(&rep.Answer))
	if rep.Key != "" {
		fmt.Fprintf(w, "  %s\n", rep.Key)
	}
	if rep.Problem != "" {
		fmt.Fprintf(w, "  %s\n", rep.Problem)
	}
	if err := printItems(w, rep.Items); err != nil {
		return err
	}
	for _, u := range rep.Unmet {
		fmt.Fprintf(w, "%s brings nothing: %s\n", u.Param, u.Why)
	}
	for _, n := range rep.Near {
		fmt.Fprintln(w, nearText(n))
	}
	if rep.MoreNear > 0 {
		fmt.Fprintf(w, "and %s more that it does not get: see precast catalog list\n", count(rep.MoreNear, "item"))
	}
	for _, name := range []string{"ETag", "Cache-Control", "Age", "X-Cache", "Via", "Retry-After"} {
		if v := rep.Headers[name]; v != "" {
			fmt.Fprintf(w, "%s: %s\n", name, v)
		}
	}
	if rep.Headers != nil {
		fmt.Fprintln(w, "A server does not tell why: ask the data folder or the bucket, without --url")
		return nil
	}
	if rep.Status == http.StatusBadRequest { // whatever is published
		return nil
	}
	printOfSlots(w, rep)
	printWaiting(w, rep)
	return nil
}

// others counts the digests that are not those of an item.
func others(held []string, items []ask.Item) (n int) {
	for _, digest := range held {
		if !slices.ContainsFunc(items, func(it ask.Item) bool { return it.SHA256 == digest || it.MD5 == digest }) {
			n++
		}
	}
	return n
}

// answerText is an answer in a line.
func answerText(a *ask.Answer) string {
	switch {
	case a.Status == http.StatusNotModified && a.Key != "":
		return "304: it has this very answer, by its ETag"
	case a.Status == http.StatusNotModified:
		return "304: it has everything that it is to have"
	case a.Status != http.StatusOK:
		return fmt.Sprintf("%d: %s", a.Status, a.Error)
	}
	how := map[string]string{
		"prebuilt": ", prebuilt", "composed": ", composed when it is asked for", "signed": ", signed when it is asked for; 404 where there is no signing key",
	}[a.Source]
	size := ""
	if a.Size > 0 {
		size = " of " + bytesText(a.Size)
	}
	return fmt.Sprintf("200: a %s%s%s", a.Kind, size, how)
}

func printItems(w io.Writer, items []ask.Item) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, it := range items {
		name := it.App
		if it.Track != "" {
			name += "/" + it.Track
		}
		what := bytesText(it.Size)
		if it.Held {
			what = "has it"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, it.Version, what, whyText(it))
	}
	return table.Flush()
}

// whyText says why a device gets an item.
func whyText(it ask.Item) string {
	var parts []string
	if len(it.By) > 0 {
		parts = append(parts, "by "+strings.Join(it.By, " and "))
	}
	for _, r := range it.Rollouts {
		side := "out of"
		if r.In {
			side = "in"
		}
		parts = append(parts, fmt.Sprintf("%s the rollout of %s: %s, salt %s", side, r.Version, percentText(r.Percent), r.Salt))
	}
	if len(it.Before) > 0 {
		parts = append(parts, "a floor, before "+strings.Join(it.Before, ", then "))
	}
	if it.Passed != "" {
		parts = append(parts, fmt.Sprintf("has passed the floor %s, as it holds %s", it.Passed, it.Shown))
	}
	if len(it.Also) > 0 {
		parts = append(parts, "the same release on "+strings.Join(it.Also, ", "))
	}
	return strings.Join(parts, "; ")
}

func nearText(n ask.Near) string {
	text := fmt.Sprintf("it does not get %s/%s %s: ", n.App, n.Track, n.Version)
	switch {
	case n.Needs == "":
		return text + n.Why
	case n.Has != "":
		text += n.Needs + " would bring it (the query says " + n.Has + ")"
	default:
		text += n.Needs + " would bring it"
	}
	if n.Why != "" {
		text += ", but " + n.Why
	}
	return text
}

// printOfSlots tells what devices with a slot get, where one without was asked for.
func printOfSlots(w io.Writer, rep *ask.Report) {
	for _, o := range rep.Slots {
		fmt.Fprintf(w, "%s of the devices with a slot (%d, say): ", percentText(ask.Percent(o.Slots)), o.Example)
		if o.Answer.Same(&rep.Answer) {
			fmt.Fprintln(w, "the same")
		} else {
			fmt.Fprintf(w, "%s\n", answerText(&o.Answer))
			printChanges(w, &rep.Answer, &o.Answer)
		}
		if o.Waiting != nil && !o.Waiting.Same(&o.Answer) {
			fmt.Fprintf(w, "  after the changes that wait: %s\n", answerText(o.Waiting))
			printChanges(w, &o.Answer, o.Waiting)
		}
	}
	if rep.More > 0 {
		fmt.Fprintf(w, "%s of the devices with a slot get other mixtures: see --slot\n", percentText(ask.Percent(rep.More)))
	}
}

// printWaiting tells what comes once the changes that wait are published.
func printWaiting(w io.Writer, rep *ask.Report) {
	wait := rep.Waiting
	if wait == nil {
		return
	}
	if !wait.Changed {
		fmt.Fprintln(w, "no changes wait")
	} else {
		by := ""
		if wait.HeldBack != "" {
			by = fmt.Sprintf(" (held back by a pin: %s)", strings.TrimPrefix(wait.HeldBack, "held back: "))
		}
		said := "the same"
		if !wait.Same {
			said = answerText(wait.Answer)
		}
		fmt.Fprintf(w, "after the changes that wait%s: %s\n", by, said)
		if !wait.Same {
			printChanges(w, &rep.Answer, wait.Answer)
		}
	}
	const most = 5
	for i, r := range wait.Rejected {
		if i == most {
			fmt.Fprintf(w, "and %s more: see precast status\n", count(len(wait.Rejected)-most, "item"))
			break
		}
		fmt.Fprintf(w, "left out: item %s %s: %s\n", r.Key, r.Version, r.Reason)
	}
}

// printChanges tells which items differ between two answers.
func printChanges(w io.Writer, from, to *ask.Answer) {
	told := false
	line := func(format string, args ...any) {
		fmt.Fprintf(w, "  "+format+"\n", args...)
		told = true
	}
	find := func(items []ask.Item, it ask.Item) int {
		return slices.IndexFunc(items, func(o ask.Item) bool { return o.App == it.App && o.Track == it.Track })
	}
	for _, it := range to.Items {
		why := whyText(it)
		at := find(from.Items, it)
		switch {
		case at < 0:
			line("%s/%s %s: %s", it.App, it.Track, it.Version, why)
		case from.Items[at].Version != it.Version:
			line("%s/%s %s instead of %s: %s", it.App, it.Track, it.Version, from.Items[at].Version, why)
		case from.Items[at].SHA256 != it.SHA256:
			line("%s/%s %s with other content: %s", it.App, it.Track, it.Version, why)
		case from.Items[at].Held != it.Held:
			line("%s/%s %s, which it holds: %t", it.App, it.Track, it.Version, it.Held)
		}
	}
	for _, it := range from.Items {
		if find(to.Items, it) < 0 {
			line("no %s/%s %s", it.App, it.Track, it.Version)
		}
	}
	if !told && from.Status == to.Status {
		line("the same packages, in another file")
	}
}
