package statement_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/trust/signing"
	"github.com/precast-ota/precast/internal/trust/statement"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

func key(seed byte) signing.PrivateKey {
	k, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

var (
	sum = strings.Repeat("0123456789abcdef", 4)
	now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func sample() statement.Statement {
	return statement.Statement{
		Generation: 7, Selection: "attrgamer=prod&cpuarch=armv8", Set: sum, Expires: now.Add(time.Hour),
		Items: []statement.Item{{sum, 10485760, "os_armv8", "1.1.0"}, {strings.Repeat("f", 64), 0, "größe 50%", "1.0+b 5"}},
	}
}

// staged is the sample for some of the devices.
func staged() statement.Statement {
	s := sample()
	s.Claims = edge.Claims{
		Rollouts: []edge.Claim{{Share: edge.Share{Salt: "spring", Places: 500}, In: true}, {Share: edge.Share{Salt: "spring", Places: 2500}, In: true}, {Share: edge.Share{Salt: "winter", Places: 0}}},
		Unless:   []string{strings.Repeat("a", 64), strings.Repeat("b", 64)},
		After:    [][]string{{strings.Repeat("c", 64)}, {strings.Repeat("c", 64), strings.Repeat("d", 64)}},
	}
	return s
}

func sign(t testing.TB, s statement.Statement) []byte {
	t.Helper()
	data, err := statement.Sign(context.Background(), s, key(1))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The format is in devices: it changes only together with its first line.
func TestGolden(t *testing.T) {
	for name, s := range map[string]statement.Statement{"testdata/statement": sample(), "testdata/staged": staged()} {
		data := sign(t, s)
		if *update {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("got\n%s\nwant\n%s", data, want)
		}
	}
}

// A statement is true of the devices that it is for, and of no others.
func TestTrue(t *testing.T) {
	slot := func(from, to int) int { // with a place between those in spring
		for slot := range index.Slots {
			if p := edge.Place("spring", slot); from <= p && p < to {
				return slot
			}
		}
		t.Fatal("no slot")
		return 0
	}
	s := staged()
	c, d := strings.Repeat("c", 64), strings.Repeat("d", 64)
	for name, x := range map[string]struct {
		slot int
		held []string
		want error
	}{
		"in both shares, after both floors": {slot(0, 500), []string{c}, nil},
		"holding more":                      {slot(0, 500), []string{sum, d, c}, nil},
		"in the larger share only":          {slot(500, 2500), []string{c}, statement.ErrOtherRollout},
		"in no share":                       {slot(2500, 10000), []string{c}, statement.ErrOtherRollout},
		"without a slot":                    {edge.NoSlot, []string{c}, statement.ErrOtherRollout},
		"before a floor":                    {slot(0, 500), []string{d}, statement.ErrOtherStep},
		"holding nothing":                   {slot(0, 500), nil, statement.ErrOtherStep},
		"past the floor that it is":         {slot(0, 500), []string{c, strings.Repeat("b", 64)}, statement.ErrOtherStep},
	} {
		if err := s.True(x.slot, x.held); !errors.Is(err, x.want) || (err == nil) != (x.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	for _, slot := range []int{edge.NoSlot, 0, 9999} {
		whole := sample()
		if err := whole.True(slot, nil); err != nil {
			t.Errorf("what is for all is not for slot %d: %v", slot, err)
		}
	}
}

func TestComesBack(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z0-9äß%?#&+ ~_][A-Za-z0-9äß%?#&+ ._~-]{0,30}`)
	rapid.Check(t, func(rt *rapid.T) {
		s := sample()
		s.Generation = rapid.Uint64Range(1, 1<<64-1).Draw(rt, "generation")
		s.Expires = time.Unix(rapid.Int64Range(1e9, 2e11).Draw(rt, "expires"), 0).UTC()
		s.Items = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) statement.Item {
			return statement.Item{rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "sha256"), rapid.Int64Range(0, 1<<50).Draw(t, "size"), name.Draw(t, "app"), name.Draw(t, "version")}
		}), 1, 20, statement.Item.FileName).Draw(rt, "items")
		if rapid.Bool().Draw(rt, "for some") {
			s.Claims = staged().Claims
		}
		data, err := statement.Sign(context.Background(), s, key(1))
		if err != nil {
			rt.Fatal(err)
		}
		back, err := statement.Parse(data)
		if err != nil {
			rt.Fatalf("%v\n%s", err, data)
		}
		if back.Generation != s.Generation || back.Selection != s.Selection || back.Set != s.Set || !back.Expires.Equal(s.Expires) || !slices.Equal(back.Items, s.Items) || !reflect.DeepEqual(back.Claims, s.Claims) {
			rt.Fatalf("%+v comes back as %+v", s, back.Statement)
		}
		if err := back.Verify(key(1).Public()); err != nil {
			rt.Fatal(err)
		}
		if back.Verify(key(2).Public()) == nil {
			rt.Fatal("another key verifies it")
		}
		// Any change of any byte is malformed, or not signed any more.
		i := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
		data[i] ^= byte(rapid.IntRange(1, 255).Draw(rt, "change"))
		if bad, err := statement.Parse(data); err == nil && bad.Verify(key(1).Public()) == nil {
			rt.Fatalf("byte %d of\n%s", i, data)
		}
	})
}

func TestLargest(t *testing.T) {
	s := sample()
	s.Items = nil
	for i := range edge.MaxSet {
		app := fmt.Sprintf("%03d", i) + strings.Repeat("%", 125)
		s.Items = append(s.Items, statement.Item{sum, 1 << 54, app, strings.Repeat("ÿ", 64)})
	}
	s.Selection = "cpuarch=" + strings.Repeat("x", 255)
	data := sign(t, s)
	if _, err := statement.Parse(data); err != nil {
		t.Fatalf("%d bytes: %v", len(data), err)
	}
	t.Logf("%d bytes", len(data))
}

func TestMalformed(t *testing.T) {
	good := string(sign(t, sample()))
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	lines[len(lines)-1] += "\n"
	var bad []string
	for i := range lines {
		if !strings.HasPrefix(lines[i], "item") {
			bad = append(bad, strings.Join(slices.Delete(slices.Clone(lines), i, i+1), ""))
		}
		bad = append(bad, strings.Join(slices.Insert(slices.Clone(lines), i, lines[i]), ""))
		if i > 0 && !(strings.HasPrefix(lines[i], "item") && strings.HasPrefix(lines[i-1], "item")) {
			swapped := slices.Clone(lines)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			bad = append(bad, strings.Join(swapped, ""))
		}
	}
	change := func(old, new string) {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q", old)
		}
		bad = append(bad, strings.Replace(good, old, new, 1))
	}
	change("statement 1", "statement 2")
	change("generation 7", "generation 0")
	change("generation 7", "generation 07")
	change("generation 7", "generation 18446744073709551616")
	change("attrgamer=prod&cpuarch=armv8", "cpuarch=armv8&attrgamer=prod")
	change("cpuarch=armv8", "cpuArch=armv8")
	change("&cpuarch=armv8", "")
	change("set 0", "set G")
	change("Z\n", "+00:00\n")
	change("2026-03-01", "2026-3-1")
	change("10485760", "-1")
	change("10485760", "1e9")
	change(" os_armv8", " %6fs_armv8")
	change(" os_armv8", " ..")
	change(" os_armv8", " a%2Fb")
	change(" os_armv8", " a%00b")
	change(" os_armv8", " %FF")
	change(" os_armv8", " %2")
	change(" os_armv8 ", " os_armv8  ")
	change(" os_armv8 1.1.0", " package details.json")
	change(" os_armv8 1.1.0", " gr%C3%B6%C3%9Fe%2050%25 1.0%2Bb%205")
	change("%C3%B6", "%c3%b6")
	change("\nkey ", "\nkey x")
	good = string(sign(t, staged()))
	change("rollout spring 500 in", "rollout spring 500 maybe")
	change("rollout spring 500 in", "rollout spring 0500 in")
	change("rollout spring 500 in", "rollout spring 3000 in")
	change("rollout spring 500 in", "rollout spring 10000 in")
	change("rollout spring 500 in", "rollout Spring 500 in")
	change("rollout spring 500 in", "rollout winter 500 in")
	change("rollout spring 500 in", "rollout spring 500 in ")
	change("rollout spring 500 in", "rollout spring")
	change("unless aaaa", "unless cccc")
	change("unless aaaa", "unless AAAA")
	change("unless a", "unless ")
	change("after cccc", "after dddd")
	change("after c", "after  c")
	change("after c", "after ")
	change("rollout winter 0 out\nunless", "unless "+strings.Repeat("0", 64)+"\nrollout winter 0 out\nunless")
	good = string(sign(t, sample()))
	bad = append(bad, "", good+"\n", good+"x\n", good[:len(good)-1], strings.ReplaceAll(good, "\n", "\r\n"), good+strings.Repeat(" ", statement.MaxBytes))
	for _, data := range bad {
		if _, err := statement.Parse([]byte(data)); !errors.Is(err, statement.ErrFormat) {
			t.Errorf("%v for\n%.2000s", err, data)
		}
	}
}

// What is not sound is not signed either.
func TestSignRefuses(t *testing.T) {
	for why, change := range map[string]func(*statement.Statement){
		"no generation":      func(s *statement.Statement) { s.Generation = 0 },
		"no items":           func(s *statement.Statement) { s.Items = nil },
		"a payload's name":   func(s *statement.Statement) { s.Items[0].App, s.Items[0].Version = "package", "details.json" },
		"a path":             func(s *statement.Statement) { s.Items[0].App = "../x" },
		"one file twice":     func(s *statement.Statement) { s.Items[1] = s.Items[0] },
		"too many items":     func(s *statement.Statement) { s.Items = make([]statement.Item, edge.MaxSet+1) },
		"sizes that overrun": func(s *statement.Statement) { s.Items[0].Size, s.Items[1].Size = 1<<62, 1<<62 },
		"no expiry":          func(s *statement.Statement) { s.Expires = time.Time{} },
		"unsorted rollouts": func(s *statement.Statement) {
			s.Claims.Rollouts = []edge.Claim{{Share: edge.Share{Salt: "b"}}, {Share: edge.Share{Salt: "a"}}}
		},
		"a digest of none":   func(s *statement.Statement) { s.Claims.Unless = []string{"x"} },
		"after nothing":      func(s *statement.Statement) { s.Claims.After = [][]string{{}} },
		"no canonical query": func(s *statement.Statement) { s.Selection = "cpuArch=x" },
	} {
		s := sample()
		change(&s)
		if _, err := statement.Sign(context.Background(), s, key(1)); err == nil {
			t.Errorf("%s: signed", why)
		}
	}
}

func TestExpired(t *testing.T) {
	s := sample()
	if err := s.Expired(s.Expires.Add(-time.Second)); err != nil {
		t.Error(err)
	}
	if err := s.Expired(s.Expires); !errors.Is(err, statement.ErrExpired) {
		t.Errorf("at its expiry: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile("testdata/statement")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte("precast statement 1\ngeneration 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := statement.Parse(data)
		if err != nil {
			if !errors.Is(err, statement.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if s.Verify(key(7).Public()) == nil {
			t.Fatal("forged")
		}
		for _, it := range s.Items {
			if name := it.FileName(); strings.ContainsAny(name, "/\\\x00\n") || name[0] == '.' || name == layout.ManifestName {
				t.Fatalf("%q is no file name", name)
			}
		}
	})
}

// What signing a statement costs when it is asked for the first time in an epoch.
func BenchmarkMake(b *testing.B) {
	for _, n := range []int{4, edge.MaxSet} {
		b.Run(fmt.Sprintf("items=%d", n), func(b *testing.B) {
			s := sample()
			s.Items = nil
			for i := range n {
				s.Items = append(s.Items, statement.Item{sum, 1 << 20, fmt.Sprint("application", i), "1.0.0"})
			}
			k := key(1)
			for b.Loop() {
				if _, err := statement.Sign(context.Background(), s, k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseAndVerify(b *testing.B) {
	for _, n := range []int{4, edge.MaxSet} {
		b.Run(fmt.Sprintf("items=%d", n), func(b *testing.B) {
			s := sample()
			s.Items = nil
			for i := range n {
				s.Items = append(s.Items, statement.Item{sum, 1 << 20, fmt.Sprint("application", i), "1.0.0"})
			}
			data, public := sign(b, s), key(1).Public()
			for b.Loop() {
				s, err := statement.Parse(data)
				if err == nil {
					err = s.Verify(public)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
