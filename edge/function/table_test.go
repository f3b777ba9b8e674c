package function_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"

	"pgregory.net/rapid"
)

// store is what a key value store has, as host.js takes it. nil: none is associated.
type store struct {
	Content map[string]string `json:"content"`
	Down    bool              `json:"down"`
}

func storeOf(values ...string) *store {
	s := &store{Content: make(map[string]string)}
	for i, v := range values {
		s.Content[fmt.Sprint("rollouts.", i)] = v
	}
	return s
}

// cohort is what the function makes of a slot and a canonical query: the rules of the table of rollouts, once more.
func (s *store) cohort(slot int, canonical string) string {
	if s == nil || s.Down {
		return ""
	}
	has := map[string]bool{"os=prod": true}
	for param := range strings.SplitSeq(canonical, "&") {
		if strings.HasPrefix(param, "os=") {
			has["os=prod"] = false
		}
		has[param] = true
	}
	line := regexp.MustCompile(`^([a-z0-9_-]{1,32}) ([0-9]{1,4}) ([0-9]{1,4}) ([0-9]{1,4}) ([^ ]+)$`)
	var entries []string
	last, length := "", -1
	for _, text := range strings.Split(s.table(), "\n") {
		f := line.FindStringSubmatch(text)
		if f == nil || f[1] <= last || (atoi(f[2])*slot+atoi(f[3]))%10000 >= atoi(f[4]) {
			continue
		}
		matters := slices.ContainsFunc(strings.Split(f[5], ","), func(selector string) bool {
			return !slices.ContainsFunc(strings.Split(selector, "&"), func(param string) bool { return !has[param] })
		})
		entry := f[1] + "~" + f[4]
		if matters && length+1+len(entry) <= 1024 {
			entries, last, length = append(entries, entry), f[1], length+1+len(entry)
		}
	}
	return strings.Join(entries, ".")
}

// table is all values together, up to one that is missing or has no successor.
func (s *store) table() string {
	var all strings.Builder
	for i := range 8 {
		value, ok := s.Content[fmt.Sprint("rollouts.", i)]
		all.WriteString(value)
		if !ok || !strings.HasSuffix(value, "+\n") {
			break
		}
	}
	return all.String()
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // digits only
	}
	return n
}

// randomStore makes a table of rollouts that a fleet's devices meet, and sometimes damages it.
func randomStore(r *rand.Rand) *store {
	if r.IntN(12) == 0 {
		return []*store{nil, {Content: map[string]string{}, Down: true}}[r.IntN(2)]
	}
	selectors := []string{"os=prod", "os=beta", "cpuarch=armv8", "cpuarch=armv8&os=prod", "attrgamer=prod", "attrgamer=beta", "attrcamera=prod",
		"scoreboard=beta", "scoreboard=prod", "my%20app=beta%202", "gr%C3%B6%C3%9Fe=%C3%9F", "a%3Db%26c=prod", "__proto__=prod", "1=prod"}
	lines := make(map[string]string) // in order of salt and share
	for range r.IntN(60) {
		salt := []string{"a", "a-b", "a_b", "ab", "b", "spring", "9", strings.Repeat("z", 32), fmt.Sprint("s", r.IntN(40))}[r.IntN(9)]
		share := []int{1, 10, 500, 5000, 9000, 9999}[r.IntN(6)]
		var of []string
		for range 1 + r.IntN(3) {
			of = append(of, selectors[r.IntN(len(selectors))])
		}
		lines[fmt.Sprintf("%s %05d", salt, share)] = fmt.Sprintf("%s %d %d %d %s\n", salt, r.IntN(1000)*10+[]int{1, 3, 7, 9}[r.IntN(4)], r.IntN(10000), share, strings.Join(of, ","))
	}
	values := []string{""}
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		if len(values[len(values)-1])+len(lines[key]) > 998 {
			values[len(values)-1] += "+\n"
			values = append(values, "")
		}
		values[len(values)-1] += lines[key]
	}
	if r.IntN(3) == 0 {
		i := r.IntN(len(values))
		values[i] = presented(mutate(r, values[i], []string{" ", "\n", "+\n", ",", "&", "=", "~", ".", "10000", "-1", "1e3", "A", "é", "\x00", "a 1 0 9999 os=prod\n", "constructor"}))
	}
	s := storeOf(values...)
	if r.IntN(6) == 0 {
		delete(s.Content, fmt.Sprint("rollouts.", r.IntN(len(values))))
	}
	return s
}

// TestTable compares what the function makes of slots and tables, sound and damaged, with the rules.
func TestTable(t *testing.T) {
	f := startFunction(t)
	in, out, damaged := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		r := chance(t)
		var batch []request
		var want []string
		for range 20 {
			all, s := params().Draw(t, "params"), randomStore(r)
			query := spellQuery(r, all)
			selection, err := edge.ParseSelection(query)
			if err != nil {
				t.Fatalf("%q: %v", query, err)
			}
			slot := []int{0, 1, 9999, r.IntN(10000), r.IntN(10000)}[r.IntN(5)]
			parts := strings.Split(query, "&")
			parts = slices.Insert(parts, r.IntN(len(parts)+1), fmt.Sprintf("%s=%0*d", spellText(r, "slot"), 1+r.IntN(6), slot))
			batch = append(batch, request{Method: "GET", URI: "/package", Query: strings.Join(parts, "&"), Raw: true, Store: s, Headers: map[string][]string{}})
			want = append(want, s.cohort(slot, selection.String()))
			if s == nil || s.Down {
				damaged++
			}
		}
		got, err := f.ask(batch)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for i, a := range got {
			if a.Thrown != "" || a.Status != 0 {
				t.Fatalf("%s\n%+v:\ngot  %+v", batch[i].Query, batch[i].Store, a)
			}
			cohort := ""
			if lines, ok := a.Headers.(map[string]any)["x-precast-cohort"]; ok {
				cohort = fmt.Sprint(lines.([]any)...)
			}
			if cohort != want[i] {
				t.Fatalf("%s\n%+v:\ngot  %q\nwant %q", batch[i].Query, batch[i].Store, cohort, want[i])
			}
			if cohort != "" {
				in++
			} else {
				out++
			}
		}
	})
	t.Logf("%d in a rollout, %d in none, %d without a store that answers", in, out, damaged)
	if in == 0 || out == 0 || damaged == 0 {
		t.Error("a case did not occur")
	}
}
