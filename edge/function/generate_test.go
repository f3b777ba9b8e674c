package function_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// queryPieces are texts that matter to one rule or another.
func queryPieces() []string {
	return []string{
		"cpuArch", "CPUARCH", "%63puArch", "os", "OS", "payloadType", "fullPayload", "metadataOnly", "statement", "attr", "attrGamer", "ATTR",
		"prod", "beta", "armv8", "slot", "SLOT", "slot=7", "=", "=", "=", "&", "&", "&", "%", "%2", "%zz", "+", "%2B", "%26", "%3D", "%25", "%00", "%1f", "%7F",
		"\x00", "\x7f", "\n", "%C3%A4", "%c3", "%A4", "ä", "\xc3", "\xff", "%ED%A0%80", "%F0%9F%98%80", "😀", "%EF%BF%BD", "\uFFFD",
		"%F4%90%80%80", "%E0%80%80", "!'()*", " ", "%20", "%41", "%5A", "%7e", "~", "-._", "?", "#", ";", "/", "__proto__", "1", "0", "10",
		"constructor", "&cpuArch=armv8&", "&os=prod", strings.Repeat("a", 85), strings.Repeat("é", 43), "%C5%BF", "K", "İ", "\u2028",
	}
}

// headerPieces are the same for If-None-Match.
func headerPieces() []string {
	return []string{
		`"`, `"`, ",", ",", ", ", " ", "\t", "W/", "w/", "*", "W", "/", "x", "é", "\xff", "\x00", "\n", "\u00a0", "bundles-", "__proto__",
		strings.Repeat("0", 32), strings.Repeat("aB", 16), strings.Repeat("Ff", 32), strings.Repeat("1", 31), strings.Repeat("z", 32), "a",
		`"` + strings.Repeat("c", 32) + `"`, `W/"` + strings.Repeat("D", 64) + `"`, strings.Repeat("K", 32), strings.Repeat("İ", 16),
	}
}

// requests generates requests.
func requests() *rapid.Generator[request] {
	queries, headers := query(), header()
	return rapid.Custom(func(t *rapid.T) request {
		r := request{Method: "GET", URI: "/package", Raw: rapid.IntRange(0, 4).Draw(t, "raw") < 4, Headers: map[string][]string{}}
		switch rapid.IntRange(0, 20).Draw(t, "route") {
		case 20:
			r.Method = rapid.SampledFrom([]string{"HEAD", "POST", "OPTIONS", "get"}).Draw(t, "method")
		case 19:
			folder := rapid.SampledFrom([]string{"/", "/package/", "/binaries/", "/binaries/" + strings.Repeat("0a", 32) + "/"}).Draw(t, "folder")
			r.URI = folder + rapid.StringMatching(`(\.|%2[eE]|/|a|é){0,3}`).Draw(t, "name")
		}
		r.Query = presented(queries.Draw(t, "query"))
		if lines := rapid.SliceOfN(headers, 0, 2).Draw(t, "If-None-Match"); len(lines) > 0 {
			for i := range lines {
				lines[i] = presented(lines[i])
			}
			r.Headers["if-none-match"] = lines
		}
		for _, name := range []string{"x-precast-held", "x-precast-cohort", "x-precast-selection", "if-modified-since", "if-unmodified-since", "if-match", "range", "if-range"} {
			if rapid.IntRange(0, 9).Draw(t, name) == 9 {
				r.Headers[name] = []string{rapid.SampledFrom([]string{"x", "x", strings.Repeat("x", 1024), strings.Repeat("é", 513)}).Draw(t, "value of "+name)}
			}
		}
		return r
	})
}

// polls generates what devices of a fleet send that hold some or all of an index's releases.
func polls(table edge.Table) *rapid.Generator[request] {
	tracks := []string{"", "prod", "beta"}
	return rapid.Custom(func(t *rapid.T) request {
		all := []param{{"cpuArch", "armv8"}}
		for _, name := range []string{"os", "attrGamer", "attrCamera", "scoreboard", "attrWet", "pump", "valve"} {
			if track := rapid.SampledFrom(tracks).Draw(t, name); track != "" {
				all = append(all, param{name, track})
			}
		}
		if rapid.Bool().Draw(t, "only the list") {
			all = append(all, param{"payloadType", "metadataOnly"})
		}
		r := chance(t)
		if r.IntN(4) > 0 {
			all = append(all, param{"slot", fmt.Sprint(r.IntN(10000))})
		}
		return request{Method: "GET", URI: "/package", Raw: true, Query: spellQuery(r, all), Store: storeOf(table.Values()...),
			Headers: map[string][]string{"if-none-match": spellTags(r, heldOf(r, table.Index))}}
	})
}

// heldOf returns the digests of all of an index's releases, or of some.
func heldOf(r *rand.Rand, ix *index.Index) []string {
	var held []string
	least := r.IntN(3) // 0: all
	for _, it := range ix.Items {
		if slices.Contains(it.Attrs, "crowd") || r.IntN(3) < least { // more digests than a device may send
			continue
		}
		if r.IntN(2) == 0 {
			held = append(held, edge.Hex(it.MD5[:]))
		} else {
			held = append(held, edge.Hex(it.SHA256[:]))
		}
	}
	return held
}

// query generates queries as devices send them, pieces in any order, long ones and random bytes.
func query() *rapid.Generator[string] {
	pieces := assembled(queryPieces(), 40)
	few := assembled(queryPieces(), 6)
	spelled := rapid.Custom(func(t *rapid.T) string {
		return spellQuery(chance(t), params().Draw(t, "params"))
	})
	return rapid.OneOf(
		spelled,
		rapid.Custom(func(t *rapid.T) string { return mutate(chance(t), spelled.Draw(t, "query"), queryPieces()) }),
		pieces,
		rapid.Map(pieces, func(s string) string { return "cpuArch=armv8&" + s }),
		rapid.Custom(func(t *rapid.T) string {
			return "cpuArch=x&" + strings.Repeat(few.Draw(t, "piece")+"&", rapid.IntRange(1, 200).Draw(t, "times"))
		}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 60), func(b []byte) string { return "cpuArch=x&a=" + string(b) }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 6), func(b []byte) string { return "cpuArch=x&" + escapes(b) + "=y" }),
		rapid.Map(rapid.SliceOfN(rapid.ByteRange(0x80, 0xff), 1, 6), func(b []byte) string { return "cpuArch=" + escapes(b) }),
	)
}

// header generates lines of If-None-Match.
func header() *rapid.Generator[string] {
	few := assembled(headerPieces(), 4)
	return rapid.OneOf(
		assembled(headerPieces(), 12),
		rapid.Custom(func(t *rapid.T) string {
			return strings.Join(spellTags(chance(t), digests().Draw(t, "digests")), ",")
		}),
		rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(few.Draw(t, "piece"), rapid.IntRange(1, 400).Draw(t, "times"))
		}),
	)
}

func assembled(pieces []string, most int) *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, most), func(s []string) string { return strings.Join(s, "") })
}

func escapes(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, "%%%02x", c)
	}
	return s.String()
}

// chance is a source of what need not shrink.
func chance(t *rapid.T) *rand.Rand { return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "chance"), 0)) }

// mutate changes a text in a few places.
func mutate(r *rand.Rand, s string, pieces []string) string {
	for range 1 + r.IntN(4) {
		from := r.IntN(len(s) + 1)
		to := min(len(s), from+r.IntN(4))
		piece := pieces[r.IntN(len(pieces))]
		switch r.IntN(6) {
		case 0: // lose
			s = s[:from] + s[to:]
		case 1: // repeat
			to = min(len(s), from+r.IntN(60))
			s = s[:to] + strings.Repeat(s[from:to], r.IntN(5)) + s[to:]
		case 2: // change a bit
			if from < len(s) {
				s = s[:from] + string([]byte{s[from] ^ 1<<r.IntN(8)}) + s[from+1:]
			}
		case 3: // move the end to the front
			s = s[from:] + s[:from]
		default:
			s = s[:from] + piece + s[to:]
		}
	}
	return s
}

// A param is one parameter, not escaped.
type param struct{ name, value string }

// params generates the parameters of a request, each name once in any case.
func params() *rapid.Generator[[]param] {
	names := []string{"attrGamer", "attrDark Mode", "attrX+Y", "scoreboard", "my App", "größe", "a=b&c", "50%", "😀", "\uFFFD", "os_armv8", "1", "10", "__proto__"}
	values := []string{"prod", "beta", "Beta 2", "ß", "x+y=1&2", "100%", "~!'()*"}
	return rapid.Custom(func(t *rapid.T) []param {
		all := []param{{"cpuArch", rapid.SampledFrom([]string{"armv8", "x 86", "größe"}).Draw(t, "arch")}}
		if rapid.Bool().Draw(t, "has os") {
			all = append(all, param{"os", rapid.SampledFrom(values).Draw(t, "os")})
		}
		if rapid.Bool().Draw(t, "has payload type") {
			all = append(all, param{"payloadType", rapid.SampledFrom([]string{"fullPayload", "metadataOnly", "statement"}).Draw(t, "payload type")})
		}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 8, rapid.ID).Draw(t, "names") {
			all = append(all, param{name, rapid.SampledFrom(values).Draw(t, name)})
		}
		return all
	})
}

// digests generates what a device holds.
func digests() *rapid.Generator[[]string] {
	digest := rapid.OneOf(rapid.StringMatching("[0-9a-f]{32}"), rapid.StringMatching("[0-9a-f]{64}"))
	return rapid.SliceOfNDistinct(digest, 0, 20, rapid.ID)
}

// spellQuery writes a query in one of the many ways in which devices may.
func spellQuery(r *rand.Rand, params []param) string {
	params = slices.Clone(params)
	for _, standard := range []param{{"os", "prod"}, {"payloadType", "fullPayload"}, {"attr", "nothing"}} {
		named := slices.ContainsFunc(params, func(p param) bool { return p.name == standard.name })
		if !named && r.IntN(3) == 0 {
			params = append(params, standard)
		}
	}
	r.Shuffle(len(params), func(i, j int) { params[i], params[j] = params[j], params[i] })
	var parts []string
	for _, p := range params {
		if r.IntN(6) == 0 { // says nothing
			parts = append(parts, []string{"", "=", "x=", "=x", spellText(r, p.name) + "=", spellText(r, p.name)}[r.IntN(6)])
		}
		parts = append(parts, spellText(r, p.name)+"="+spellText(r, p.value))
		if r.IntN(6) == 0 { // comes too late
			parts = append(parts, spellText(r, p.name)+"=late")
		}
	}
	return strings.Join(parts, "&")
}

// spellText writes a name or value: letters in any case, bytes escaped or not.
func spellText(r *rand.Rand, s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if letter && r.IntN(2) == 0 {
			c ^= 0x20
		}
		plain := letter || '0' <= c && c <= '9' || strings.IndexByte("-._~!'()*", c) >= 0
		switch {
		case c == ' ' && r.IntN(2) == 0:
			b.WriteByte('+')
		case plain && r.IntN(4) > 0:
			b.WriteByte(c)
		case r.IntN(2) == 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// spellTags writes digests as lines of If-None-Match, at least one.
func spellTags(r *rand.Rand, digests []string) []string {
	digests = slices.Clone(digests)
	r.Shuffle(len(digests), func(i, j int) { digests[i], digests[j] = digests[j], digests[i] })
	lines := []string{""}
	add := func(tag string) {
		last := &lines[len(lines)-1]
		*last += tag + []string{",", ", ", " ,", ",,", ", \t, "}[r.IntN(5)]
	}
	for _, d := range digests {
		for range 1 + r.IntN(2) {
			if r.IntN(2) == 0 {
				d = strings.ToUpper(d)
			}
			add(fmt.Sprintf([]string{"%s", `"%s"`, `W/"%s"`, ` "%s" `, "\tw/%s"}[r.IntN(5)], d))
		}
		if r.IntN(5) == 0 {
			add([]string{"*", `"*"`, `W/""`, "W/", `"`, "abc", d[1:], d + "0", "g" + d[1:]}[r.IntN(9)])
		}
		if r.IntN(5) == 0 {
			lines = append(lines, "")
		}
	}
	return lines
}
