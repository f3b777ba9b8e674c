package edge_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"
)

var update = flag.Bool("update", false, "write the golden files")

// The vectors in testdata/canonical are what this package answers, for readers in other languages: the
// viewer function is tested against them, and clients may be.

type selectionVector struct {
	Why       string `json:"why"`
	Query     string `json:"query"`
	Canonical string `json:"canonical,omitempty"`
	Status    int    `json:"status,omitempty"`
	Error     string `json:"error,omitempty"`
}

type heldVector struct {
	Why    string  `json:"why"`
	Header string  `json:"header"`
	Held   *string `json:"held,omitempty"` // always there if there is no error
	Single string  `json:"single,omitempty"`
	Status int     `json:"status,omitempty"`
	Error  string  `json:"error,omitempty"`
}

type decideVectors struct {
	Index []byte         `json:"index"` // base64
	Cases []decideVector `json:"cases"`
}

type decideVector struct {
	Why     string            `json:"why"`
	NoIndex bool              `json:"noIndex,omitempty"`
	Query   string            `json:"query"`
	Cohort  string            `json:"cohort,omitempty"`
	Held    string            `json:"held"`
	Status  int               `json:"status"`
	Key     string            `json:"key,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

// golden compares vectors with their file, or writes it. Every text must survive JSON.
func golden(t *testing.T, name string, vectors any) {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(vectors); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "testdata", "canonical", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s is not what this package answers now; if the answers are right, run make golden", path)
	}
}

// wantTexts fails unless every text is the error of some vector.
func wantTexts(t *testing.T, got map[string]bool, want ...string) {
	t.Helper()
	for _, text := range want {
		if !got[text] {
			t.Errorf("no vector has the error %q", text)
		}
	}
}

func TestSelectionVectors(t *testing.T) {
	var vectors []selectionVector
	errors := map[string]bool{}
	for _, c := range selectionInputs() {
		if !utf8.ValidString(c.query) {
			t.Fatalf("%s: JSON cannot hold %q", c.why, c.query)
		}
		v := selectionVector{Why: c.why, Query: c.query}
		if s, err := edge.ParseSelection(c.query); err != nil {
			v.Status, v.Error = edge.StatusBadRequest, err.Error()
		} else {
			v.Canonical = s.String()
		}
		if refused := v.Error != ""; refused != c.refused {
			t.Errorf("%s: refused: %t (%s), want %t", c.why, refused, v.Error, c.refused)
		}
		errors[v.Error] = true
		vectors = append(vectors, v)
	}
	wantTexts(t, errors, "Query is longer than 8000 bytes", "Query has more than 128 parameters", "Query has a broken percent escape",
		"Query has a key or value longer than 255 bytes", "Query has a control character", "Query is not UTF-8",
		string(edge.ErrMissingArch), string(edge.ErrPayloadType), string(edge.ErrSlot))
	golden(t, "selection.json", vectors)
}

func TestHeldVectors(t *testing.T) {
	var vectors []heldVector
	errors := map[string]bool{}
	for _, c := range heldInputs() {
		v := heldVector{Why: c.why, Header: c.header}
		if tags, err := edge.ParseTags(c.header); err != nil {
			v.Status, v.Error = edge.StatusBadRequest, err.Error()
		} else {
			held := tags.String()
			v.Held = &held
			v.Single, _ = edge.SingleTag(c.header)
		}
		if refused := v.Error != ""; refused != c.refused {
			t.Errorf("%s: refused: %t (%s), want %t", c.why, refused, v.Error, c.refused)
		}
		errors[v.Error] = true
		vectors = append(vectors, v)
	}
	wantTexts(t, errors, "If-None-Match is longer than 20480 bytes", "If-None-Match has more than 64 digests")
	golden(t, "held.json", vectors)
}

func TestDecideVectors(t *testing.T) {
	ix := indexOf(vectorItems()...)
	ix.BaseURL = "https://cdn.example.com"
	var latest, none edge.Latest
	if err := latest.Offer(ix.Encode()); err != nil {
		t.Fatal(err)
	}
	vectors := decideVectors{Index: ix.Encode()}
	errors := map[string]bool{}
	for _, c := range decideInputs() {
		source := &latest
		if c.noIndex {
			source = &none
		}
		d := edge.DecideCohort(source.Index(), c.query, c.cohort, c.held)
		if d.Status != c.status {
			t.Errorf("%s: status %d %s, want %d", c.why, d.Status, d.Error, c.status)
		}
		v := decideVector{Why: c.why, NoIndex: c.noIndex, Query: c.query, Cohort: c.cohort, Held: c.held, Status: d.Status}
		if d.Status == edge.StatusOK {
			_, v.Key = d.Object()
		} else {
			v.fill(d.Response())
		}
		errors[d.Error] = true
		vectors.Cases = append(vectors.Cases, v)
	}
	wantTexts(t, errors, edge.ErrNoIndex, edge.ErrNotFound, "Selection matches 257 packages, more than 256",
		"Query is longer than 8000 bytes", "Query has more than 128 parameters", "Query has a broken percent escape",
		"Query has a key or value longer than 255 bytes", "Query has a control character", "Query is not UTF-8",
		"If-None-Match is longer than 20480 bytes", "If-None-Match has more than 64 digests",
		string(edge.ErrMissingArch), string(edge.ErrPayloadType), string(edge.ErrSlot))
	golden(t, "decide.json", vectors)
}

func (v *decideVector) fill(r edge.Response) {
	v.Body, v.Headers = r.Body, make(map[string]string)
	for _, h := range r.Headers {
		v.Headers[h.Name] = h.Value
	}
}

// Inputs. refused and status are what the author means; the rest of an answer is computed.

type selectionInput struct {
	why, query string
	refused    bool
}

// repeated is n parameters that are all different, each of 6 bytes with its &.
func repeated(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&%03x=1", i)
	}
	return b.String()
}

func selectionInputs() []selectionInput {
	var all []selectionInput
	ok := func(why, query string) { all = append(all, selectionInput{why, query, false}) }
	refused := func(why, query string) { all = append(all, selectionInput{why, query, true}) }

	ok("the least", "cpuArch=armv8")
	ok("the sample's request", "cpuArch=armv8&os=beta&attrGamer=prod&attrCamera=beta&videoStreamer=prod&payloadType=metadataOnly")
	ok("canonical already", "attrgamer=prod&cpuarch=armv8&os=beta&payloadtype=metadataonly&scoreboard=beta")
	ok("names in upper case", "CPUARCH=armv8&ATTRGAMER=prod")
	ok("values in upper case", "cpuArch=ARMV8&attrGamer=PROD")
	ok("any order", "z=1&a=2&cpuArch=x&m=3")
	ok("digits sort before letters", "a=1&1=1&cpuArch=x&10=1&2=1")
	ok("a name sorts before those that it begins", "ab=1&a=1&abc=1&cpuArch=x")
	ok("- . _ ~ stay as they are, and sort by their bytes", "cpuArch=x&a~=1&a_=1&a.=1&a-=1&aa=1&a0=1")
	ok("escapes sort by the byte that they stand for, not by %", "cpuArch=x&%7Ez=1&a%20b=1&a!b=1&a-b=1&%20=1")
	ok("UTF-8 sorts by its bytes: after all ASCII", "cpuArch=x&%C3%A4=1&~=1&zz=1")
	ok("U+FFFD sorts before U+1F600, which UTF-16 has the other way round", "cpuArch=x&%F0%9F%98%80=1&%EF%BF%BD=1")

	ok("os at its default track is left out", "cpuArch=armv8&os=prod")
	ok("os at its default track, in upper case", "cpuArch=armv8&OS=PROD")
	ok("os at another track", "cpuArch=armv8&os=beta")
	ok("os at its default track, escaped", "cpuArch=armv8&%6Fs=%70ro%64")
	ok("os at a track like the default one", "cpuArch=armv8&os=prod2")
	ok("the full payload is left out", "cpuArch=armv8&payloadType=fullPayload")
	ok("the full payload, escaped and in another case", "cpuArch=armv8&PAYLOAD%54YPE=fullpay%6Coad")
	ok("metadata only", "cpuArch=armv8&payloadType=metadataOnly")
	ok("metadata only, in upper case", "cpuArch=armv8&PAYLOADTYPE=METADATAONLY")
	ok("a statement", "cpuArch=armv8&payloadType=statement")
	ok("a statement, in another case and escaped", "cpuArch=armv8&payloadType=STATEMEN%54")
	refused("statements are none", "cpuArch=armv8&payloadType=statements")
	refused("another payload type", "cpuArch=armv8&payloadType=zip")
	refused("a payload type with a blank", "cpuArch=armv8&payloadType=fullPayload%20")
	refused("a payload type of an escaped NUL is a control character first", "cpuArch=armv8&payloadType=%00")
	ok("a payload type without a value", "cpuArch=armv8&payloadType=")
	ok("a slot is no part of the selection", "cpuArch=armv8&slot=42")
	ok("slots go to 9999", "SLOT=9999&cpuArch=armv8")
	ok("a slot with zeros before it", "cpuArch=armv8&slot=000000042")
	ok("a slot of zeros", "cpuArch=armv8&slot=00000")
	ok("a slot, escaped", "cpuArch=armv8&s%6Cot=%34%32")
	ok("a slot without a value", "cpuArch=armv8&slot=")
	ok("the first slot counts", "cpuArch=armv8&slot=1&slot=x")
	refused("the first slot counts, also if it is wrong", "cpuArch=armv8&slot=x&slot=1")
	refused("a slot beyond the last", "cpuArch=armv8&slot=10000")
	refused("a slot far beyond the last", "cpuArch=armv8&slot=99999999999999999999999")
	refused("a negative slot", "cpuArch=armv8&slot=-1")
	refused("a slot with a sign", "cpuArch=armv8&slot=%2B1")
	refused("a slot with a fraction", "cpuArch=armv8&slot=1.0")
	refused("a slot in other digits", "cpuArch=armv8&slot=%D9%A1")
	refused("a wrong payload type, before a wrong slot", "cpuArch=armv8&payloadType=zip&slot=x")
	ok("the first payload type counts", "cpuArch=armv8&payloadType=metadataOnly&payloadType=zip")
	refused("the first payload type counts, also if it is wrong", "cpuArch=armv8&payloadType=zip&payloadType=fullPayload")
	ok("attr without a name says nothing", "cpuArch=armv8&attr=prod")
	ok("attr without a name, in upper case and escaped", "cpuArch=armv8&%41TTR=prod")
	ok("an attribute of one letter", "cpuArch=armv8&attrX=prod")
	ok("an attribute of a blank", "cpuArch=armv8&attr+=prod")
	ok("atr is no attribute", "cpuArch=armv8&atr=prod")
	ok("an attribute called attr", "cpuArch=armv8&attrAttr=prod")
	ok("an app called os_armv8", "cpuArch=armv8&os_armv8=beta")
	ok("unknown parameters stay: the catalog decides", "cpuArch=armv8&utm_source=mail")

	refused("nothing", "")
	refused("no architecture", "os=prod")
	refused("an architecture without a value", "cpuArch=")
	refused("an architecture without =", "cpuArch")
	refused("the value alone", "=armv8")
	refused("a name like the architecture's", "cpuArchs=armv8")
	refused("separators alone", "&&&=&==")
	refused("no architecture, before a wrong payload type", "payloadType=zip")
	ok("an architecture of =", "cpuArch==")
	ok("an architecture of a blank", "cpuArch=+")

	ok("first of repeated values", "cpuArch=armv8&cpuArch=armv7")
	ok("first of repeated names in different cases", "CPUARCH=armv8&cpuArch=armv7&cpuarch=x")
	ok("first of repeated names in different escapes", "%63puArch=armv8&cpuArch=armv7")
	ok("a parameter without a value does not count as the first", "cpuArch=&cpuArch=armv8")
	ok("a parameter without = does not count as the first", "cpuArch&cpuArch=armv8")
	ok("os: the first counts, default or not", "cpuArch=armv8&os=prod&os=beta")
	ok("repeated apps", "cpuArch=armv8&app=beta&APP=prod&App=stage")
	ok("empty parameters", "&&cpuArch=armv8&&&a=b&&")
	ok("parameters without a name", "=x&cpuArch=armv8&==&=y=z")
	ok("a value with =", "cpuArch=armv8&a=b=c&d==")
	ok("a value with ?", "cpuArch=armv8&a=b?c")
	ok("a ? before the first name belongs to it", "?a=1&cpuArch=armv8")
	ok("; separates nothing", "cpuArch=armv8;os=beta")
	ok("a fragment belongs to the value", "cpuArch=armv8#os=beta")
	ok("names of JavaScript's objects", "cpuArch=x&__proto__=1&constructor=2&toString=3&hasOwnProperty=4&length=5")
	ok("a name that is escaped =", "cpuArch=x&%3D=1&a%3Db=2")
	ok("os%3Dprod is an app's name, not os at its default", "cpuArch=x&os%3Dprod=1&os=prod%26")

	ok("+ is a blank", "cpuArch=a+b")
	ok("%20 is a blank", "cpuArch=a%20b")
	ok("a raw blank", "cpuArch=a b")
	ok("%2B is a plus", "cpuArch=a%2Bb")
	ok("blanks in names", "cpuArch=x&my+app=beta&my%20app=prod")
	ok("reserved characters, escaped", "cpuArch=%21%22%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3C%3D%3E%3F%40%5B%5C%5D%5E%60%7B%7C%7D")
	ok("reserved characters, raw", "cpuArch=!\"#$'()*,/:;<=>?@[\\]^`{|}")
	ok("unreserved characters, escaped", "cpuArch=%2D%2E%5F%7E%30%39%41%5A%61%7A")
	ok("unreserved characters, raw", "cpuArch=-._~09AZaz")
	ok("hex digits of escapes in lower case", "cpuArch=%c3%a4%2f%2F")
	ok("an escaped letter is folded", "cpuArch=%41%42C")
	ok("an escaped percent sign is not undone twice", "cpuArch=%2541")
	ok("the largest of one byte", "cpuArch=~%7E")
	ok("everything escaped", "%63%70%75%41%72%63%68=%61%72%6D%76%38&%61%74%74%72%47=%50%52%4F%44")
	refused("an escaped & separates nothing, and then there is no architecture", "a=b%26cpuArch=armv8")
	refused("an escaped = separates nothing", "cpuArch%3Darmv8")

	refused("a percent sign at the end", "cpuArch=armv8%")
	refused("half an escape at the end", "cpuArch=armv8%4")
	refused("no hex digit", "cpuArch=%zz")
	refused("one hex digit", "cpuArch=%4g")
	refused("a percent sign before a plus", "cpuArch=%+41")
	refused("a percent sign before a blank", "cpuArch=% 41")
	refused("two percent signs", "cpuArch=%%41")
	refused("a percent sign before a raw ä", "cpuArch=%ä1")
	refused("a percent sign before digits that are not ASCII", "cpuArch=%４１")
	refused("a broken escape in a name", "cpuArch=armv8&a%=b")
	refused("an escape is not undone over =", "cpuArch=armv8&a%3=Db")
	refused("an escape is not undone over &", "cpuArch=armv8%3&D=b")
	ok("a broken escape in a parameter without a value does not matter", "cpuArch=armv8&%zz=&%zz&=%zz")
	refused("a broken escape in a repetition matters", "cpuArch=armv8&cpuArch=%zz")
	refused("%u is no escape", "cpuArch=%u0041")

	refused("an escaped NUL", "cpuArch=armv8%00")
	refused("a raw NUL", "cpuArch=armv8\x00")
	refused("an escaped line feed", "cpuArch=armv8%0a")
	refused("a raw line feed at the end", "cpuArch=armv8\n")
	refused("an escaped tabulator", "cpuArch=%09armv8")
	refused("the last control character before the blank", "cpuArch=%1F")
	refused("a raw unit separator", "cpuArch=\x1f")
	refused("an escaped DEL", "cpuArch=%7F")
	refused("a raw DEL", "cpuArch=\x7f")
	refused("a control character in a name", "cpuArch=armv8&a%0Db=c")
	ok("C1 controls are not refused", "cpuArch=%C2%80%C2%9F")
	ok("blanks of Unicode are not refused", "cpuArch=%C2%A0%E2%80%83%E2%80%A8%EF%BB%BF")

	ok("UTF-8, escaped", "cpuArch=gr%C3%B6%C3%9Fe")
	ok("UTF-8, raw", "cpuArch=größe")
	ok("UTF-8, half escaped", "cpuArch=%C3%B6ö")
	ok("only ASCII letters have two cases", "cpuArch=%C3%84%C3%A4%E1%BA%9E&attr%C3%84=1&attr%C3%A4=2")
	ok("the Kelvin sign is no k, the dotless i no i, the long s no s", "cpuArch=%E2%84%AA%C4%B1%C4%B0%C5%BF")
	ok("composed and decomposed forms are different", "cpuArch=%C3%A4a%CC%88")
	ok("names in UTF-8, escaped and raw, are one", "cpuArch=x&gr%C3%B6%C3%9Fe=beta&größe=prod")
	ok("four bytes, raw and escaped", "cpuArch=😀%F0%9F%98%80")
	ok("the first of two bytes", "cpuArch=%C2%80")
	ok("the last of two bytes", "cpuArch=%DF%BF")
	ok("the first of three bytes", "cpuArch=%E0%A0%80")
	ok("the last before the surrogates", "cpuArch=%ED%9F%BF")
	ok("the first after the surrogates", "cpuArch=%EE%80%80")
	ok("the last of three bytes, no character", "cpuArch=%EF%BF%BF")
	ok("the first of four bytes", "cpuArch=%F0%90%80%80")
	ok("the last of Unicode", "cpuArch=%F4%8F%BF%BF")
	refused("beyond Unicode", "cpuArch=%F4%90%80%80")
	refused("a surrogate", "cpuArch=%ED%A0%80")
	refused("a pair of surrogates", "cpuArch=%ED%A0%BD%ED%B8%80")
	refused("the last surrogate", "cpuArch=%ED%BF%BF")
	refused("a continuation alone", "cpuArch=%80")
	refused("a lead alone", "cpuArch=%C3")
	refused("a lead before ASCII", "cpuArch=%C3a")
	refused("a lead before a lead", "cpuArch=%C3%C3%A4")
	refused("a continuation too many", "cpuArch=%C3%A4%A4")
	refused("two of three bytes", "cpuArch=%E2%82")
	refused("three of four bytes", "cpuArch=%F0%9F%98")
	refused("two bytes for what needs one", "cpuArch=%C0%AF")
	refused("two bytes for what needs one, the last of those", "cpuArch=%C1%BF")
	refused("three bytes for what needs two", "cpuArch=%E0%9F%BF")
	refused("four bytes for what needs three", "cpuArch=%F0%8F%BF%BF")
	refused("F5 begins nothing", "cpuArch=%F5%80%80%80")
	refused("FE and FF are nothing", "cpuArch=%FE%FF")
	refused("Latin-1", "cpuArch=gr%F6%DFe")
	refused("a character over two parameters", "cpuArch=%C3&%A4=%A4")
	refused("a character over name and value", "cpuArch=x&%C3=%A4")
	refused("no UTF-8 in a name", "cpuArch=x&%FF=a")

	ok("a value of 255 bytes", "cpuArch="+strings.Repeat("x", 255))
	refused("a value of 256 bytes", "cpuArch="+strings.Repeat("x", 256))
	ok("a name of 255 bytes", "cpuArch=x&"+strings.Repeat("n", 255)+"=1")
	refused("a name of 256 bytes", "cpuArch=x&"+strings.Repeat("n", 256)+"=1")
	ok("255 bytes, escaped", "cpuArch="+strings.Repeat("%41", 255))
	refused("256 bytes, escaped", "cpuArch="+strings.Repeat("%41", 256))
	ok("255 bytes of UTF-8", "cpuArch=x"+strings.Repeat("é", 127))
	refused("256 bytes of UTF-8 are 128 characters", "cpuArch="+strings.Repeat("é", 128))
	ok("255 bytes, partly blanks", "cpuArch="+strings.Repeat("+", 255))
	refused("256 bytes, partly blanks", "cpuArch="+strings.Repeat("+", 256))
	ok("255 bytes with =", "cpuArch="+strings.Repeat("=", 255))
	refused("256 bytes with =", "cpuArch="+strings.Repeat("=", 256))
	ok("what has no value may be long", "cpuArch=x&"+strings.Repeat("n", 300))
	refused("an attribute's name counts with attr", "cpuArch=x&attr"+strings.Repeat("n", 252)+"=1")
	refused("long, in a repetition", "cpuArch=x&cpuArch="+strings.Repeat("x", 256))

	ok("128 parameters", "cpuArch=x"+repeated(127))
	refused("129 parameters", "cpuArch=x"+repeated(128))
	refused("129 parameters, all one", strings.Repeat("cpuArch=x&", 129))
	ok("128 parameters, all one", strings.Repeat("cpuArch=x&", 128))
	ok("parameters without a value do not count", "cpuArch=x"+strings.Repeat("&a=&b&=c", 200))
	refused("129 parameters, before the fault in the last", "cpuArch=x"+repeated(127)+"&a=%zz")
	refused("a fault in the 128th parameter, before there are 129", "cpuArch=x"+repeated(126)+"&a=%zz&b=c")

	ok("8,000 bytes", "cpuArch=x"+strings.Repeat("&", 8000-9))
	refused("8,001 bytes", "cpuArch=x"+strings.Repeat("&", 8001-9))
	ok("8,000 bytes of UTF-8", "cpuArch=x&"+strings.Repeat("é", (8000-10)/2))
	refused("8,002 bytes of UTF-8 are far fewer characters", "cpuArch=x&"+strings.Repeat("é", (8002-10)/2))
	refused("8,001 bytes are too long before anything else is wrong", "%zz=%zz"+strings.Repeat("&", 8001-7))
	refused("8,001 bytes and no architecture", strings.Repeat("&", 8001))
	refused("8,000 bytes and no architecture", strings.Repeat("&", 8000))
	// Its canonical form has 9 + 10*(4+3*252) + 6 + 3*last bytes.
	tens := func(last int) string {
		var b strings.Builder
		b.WriteString("cpuArch=x")
		for i := range 10 {
			fmt.Fprintf(&b, "&k%d=%s", i, strings.Repeat("!", 252))
		}
		fmt.Fprintf(&b, "&last=%s", strings.Repeat("!", last))
		return b.String()
	}
	ok("a canonical form of 8,000 bytes, three times the query", tens(127)+"&a=1")
	refused("a canonical form of 8,001 bytes", tens(127)+"&ab=1")
	ok("what the canonical form leaves out does not count", tens(127)+"&a=1&os=prod&attr=x&A=2&payloadType=fullPayload")
	refused("a canonical form that is too long is looked at after the payload type", tens(127)+"&ab=1&payloadType=zip")

	refused("in one parameter: a broken escape before too many bytes", "cpuArch="+strings.Repeat("x", 300)+"%")
	refused("in one parameter: too many bytes before a control character", "cpuArch=%00"+strings.Repeat("x", 300))
	refused("in one parameter: a control character before broken UTF-8", "cpuArch=%FF%00")
	refused("a name's fault before its value's", "cpuArch=x&%FF=%zz")
	refused("an earlier parameter's fault before a later one's", "a=%00&cpuArch=%zz")
	refused("a fault anywhere before a missing architecture", "a=%FF")
	refused("a missing architecture before a wrong payload type", "payloadType=x&a=b")
	return all
}

type heldInput struct {
	why, header string
	refused     bool
}

func heldInputs() []heldInput {
	var all []heldInput
	ok := func(why, header string) { all = append(all, heldInput{why, header, false}) }
	refused := func(why, header string) { all = append(all, heldInput{why, header, true}) }
	a, b, c := md5Of("a", "1"), md5Of("b", "1"), sha256Of("c", "1")

	ok("no header", "")
	ok("an MD5", `"`+a+`"`)
	ok("a SHA-256", `"`+c+`"`)
	ok("not quoted", a)
	ok("weak", `W/"`+a+`"`)
	ok("weak, in lower case", `w/"`+a+`"`)
	ok("weak, not quoted", "W/"+a)
	ok("upper case", `"`+strings.ToUpper(a)+`"`)
	ok("mixed case", strings.ToUpper(a[:16])+a[16:])
	ok("two", `"`+a+`", "`+b+`"`)
	ok("two, without a blank", a+","+b)
	ok("sorted", strings.Repeat("f", 32)+","+strings.Repeat("0", 32)+","+strings.Repeat("a", 32))
	ok("MD5 and SHA-256 sort as text", strings.Repeat("b", 32)+","+strings.Repeat("a", 64)+","+strings.Repeat("a", 32))
	ok("a digest that begins another", strings.Repeat("a", 64)+","+strings.Repeat("a", 32))
	ok("twice", a+","+a)
	ok("twice, in different spellings", a+`,W/"`+strings.ToUpper(a)+`", `+`"`+a+`"`)
	ok("digits only", strings.Repeat("1", 32)+","+strings.Repeat("0", 64))
	ok("blanks and tabulators around", " \t "+a+" \t ,\t"+b+" ")
	ok("a trailing comma", a+",")
	ok("commas", ",,,"+a+",,"+b+",, ,")
	ok("commas alone", ", ,,")
	ok("blanks alone", " \t ")
	ok("*", "*")
	ok("* beside a digest", "*, "+a)
	ok("a quoted *", `"*"`)
	ok("the ETag of an answer", `"bundles-`+c+`-0.tar.gz"`)
	ok("the weak ETag of an answer", `W/"manifests-`+c+`-1f.json"`)
	ok("the ETag of an answer beside a digest", `"bundles-`+c+`-0.tar.gz", `+a)
	ok("an ETag in upper case stays as it is", `"ABC"`)
	ok("31 digits", a[1:])
	ok("33 digits", a+"0")
	ok("63 digits", c[1:])
	ok("65 digits", c+"0")
	ok("40 digits: SHA-1", c[:40])
	ok("a digit that is not hex", "g"+a[1:])
	ok("32 characters, no hex", strings.Repeat("z", 32)+","+a)
	ok("32 bytes that are not ASCII", strings.Repeat("é", 16))
	ok("32 characters that are not ASCII", strings.Repeat("é", 32)+","+a)
	ok("digits that are not ASCII", strings.Repeat("１", 32))
	ok("only a quote", `"`)
	ok("two quotes", `""`)
	ok("three quotes", `"""`)
	ok("a quote before only", `"`+a)
	ok("a quote behind only", a+`"`)
	ok("two quotes on each side", `""`+a+`""`)
	ok("single quotes", `'`+a+`'`)
	ok("W/ alone", "W/")
	ok("W/ and quotes", `W/""`)
	ok("W alone", "W")
	ok("/ alone", "/")
	ok("twice weak", `W/W/"`+a+`"`)
	ok("a blank after W/", `W/ "`+a+`"`)
	ok("a blank between W and /", `W /"`+a+`"`)
	ok("a blank within the quotes", `" `+a+`"`)
	ok("a blank in the middle", a[:16]+" "+a[16:])
	ok("a comma within the quotes separates", `"`+a+`,`+b+`"`)
	ok("a single tag with a comma is two", `"x,y"`)
	ok("a semicolon separates nothing", a+";"+b)
	ok("a no-break space is not stripped", "\u00a0"+a)
	ok("a line feed is not stripped", a+"\n")
	ok("a NUL is not stripped", a+"\x00")
	ok("an escape is not undone", "%61"+a[1:])
	ok("one tag and stray commas", ` , "x" ,, `)
	ok("one tag twice is not single", `"x","x"`)
	ok("a single tag that is text", "hello world")
	ok("a single tag with a quote inside", `"a"b"`)
	ok("a single tag in UTF-8", `"größe"`)
	ok("a name of JavaScript's objects", "__proto__, constructor")
	ok("64 digests", manyDigests(64))
	refused("65 digests", manyDigests(65))
	ok("64 digests twice", manyDigests(64)+","+strings.ToUpper(manyDigests(64)))
	ok("65 tags, one of them no digest", manyDigests(64)+",x")
	ok("many tags that are no digests", strings.Repeat("x,", 200))
	refused("65 digests of SHA-256", manySHA256(65))
	ok("64 digests of SHA-256", manySHA256(64))
	ok("a list of 256", a+strings.Repeat(",", 255))
	refused("a list of 257", a+strings.Repeat(",", 256))
	refused("a list of 257, of blanks", strings.Repeat(" ,", 256))
	refused("a long list before too many digests", manyDigests(65)+strings.Repeat(",", 200))
	ok("20,480 bytes", a+strings.Repeat(" ", 20480-32))
	refused("20,481 bytes", a+strings.Repeat(" ", 20481-32))
	refused("too long before a long list", strings.Repeat(",", 20481))
	ok("20,480 bytes of UTF-8", strings.Repeat("é", 10240))
	refused("20,482 bytes of UTF-8 are far fewer characters", strings.Repeat("é", 10241))
	refused("too long before too many", manyDigests(620)+strings.Repeat(",", 100))
	ok("20,480 bytes of blanks", strings.Repeat(" ", 20479)+"x")
	return all
}

func manySHA256(n int) string {
	var all []string
	for i := range n {
		all = append(all, sha256Of("many", fmt.Sprint(i)))
	}
	return strings.Join(all, ",")
}

// vectorItems are the sample's items, names that are awkward in a query, and a crowd.
func vectorItems() []index.Item {
	again := item("videoStreamer", "canary", "0.0.1", "camera") // prod's release on a third track
	items := append(sampleIndexItems(), again,
		item("os_x 86", "prod", "1.0"),
		item("my App", "prod", "1", "Dark Mode"), item("my App", "Beta 2", "2", "Dark Mode"),
		item("größe", "ß", "1", "größer"), item("GRÖSSE", "prod", "1"),
		item("x+y=1&2", "prod", "50%"), item("a/b", "prod", "1"),
		item("😀", "prod", "1"), item("\uFFFD", "prod", "1"),
	)
	items = append(items, stagedItems()...)
	for i := range edge.MaxSet + 1 {
		attrs := []string{"crowd"}
		if i < edge.MaxSet {
			attrs = append(attrs, "all")
		}
		items = append(items, item(fmt.Sprintf("c%03d", i), "prod", "1", attrs...))
	}
	return items
}

// stagedItems are an app in two rollouts, one over the other, with floors; and another one whose rollout has the
// salt of the newer of these, and a larger share, over nothing.
func stagedItems() []index.Item {
	floor := func(version string, passed ...string) index.Item {
		it := item("pump", "prod", version)
		it.Role = index.Floor
		for _, v := range passed {
			p := item("pump", "prod", v)
			it.Passed = append(it.Passed, index.Digests{MD5: p.MD5, SHA256: p.SHA256})
		}
		return it
	}
	newest, old, oldest := item("pump", "prod", "4.0", "wet", "new"), item("pump", "prod", "3.5", "wet"), item("pump", "prod", "1.0", "wet")
	newest.Salt, newest.Share = "spring", 500
	old.Role, old.Salt, old.Share = index.Previous, "winter", 9000
	oldest.Role = index.Previous
	valve := item("valve", "prod", "2", "wet")
	valve.Salt, valve.Share = "spring", 2000
	return []index.Item{newest, floor("3.0", "3.1", "3.2"), floor("2.0", "3.5"), old, floor("2.0", "2.1"), oldest, valve}
}

type decideInput struct {
	why, query, held string
	cohort           string
	status           int
	noIndex          bool
}

func decideInputs() []decideInput {
	var all []decideInput
	add := func(status int, why, query string, held ...string) {
		all = append(all, decideInput{why: why, query: query, held: strings.Join(held, ","), status: status})
	}
	ok := func(why, query string, held ...string) { add(200, why, query, held...) }
	osProd, osBeta := md5Of("os_armv8", "1.1.0"), md5Of("os_armv8", "2.0.0")
	board, video := md5Of("scoreboard", "1.0.0"), md5Of("videoStreamer", "0.0.1")

	ok("the operating system alone", "cpuarch=armv8")
	ok("the operating system at another track", "cpuarch=armv8&os=beta")
	ok("another architecture", "cpuarch=armv7")
	ok("an architecture with a blank", "cpuarch=x%2086")
	ok("an attribute", "attrgamer=prod&cpuarch=armv8")
	ok("two attributes with one item in common", "attrcamera=prod&attrgamer=prod&cpuarch=armv8")
	ok("all attributes", "attrcamera=prod&attrcellular=prod&attrgamer=prod&cpuarch=armv8")
	ok("one app at two tracks, by its attributes", "attrcamera=beta&attrgamer=prod&cpuarch=armv8")
	ok("one app at two tracks, by attribute and name", "attrcamera=beta&cpuarch=armv8&videostreamer=prod")
	ok("one release on two tracks is one item", "attrcamera=canary&cpuarch=armv8&videostreamer=prod")
	ok("one release on another track is the same bundle", "attrcamera=canary&cpuarch=armv8")
	ok("which is this one", "attrcamera=prod&cpuarch=armv8")
	ok("an app by its name", "cpuarch=armv8&modemfw=prod")
	ok("an app of another architecture by its name", "cpuarch=armv8&os_armv7=beta")
	ok("an app whose name has a blank", "cpuarch=armv8&my%20app=prod")
	ok("a track with a blank", "cpuarch=armv8&my%20app=beta%202")
	ok("an attribute with a blank", "attrdark%20mode=prod&cpuarch=armv8")
	ok("an attribute and a track with blanks", "attrdark%20mode=beta%202&cpuarch=armv8")
	ok("a name in UTF-8", "cpuarch=armv8&gr%C3%B6%C3%9Fe=%C3%9F")
	ok("a name in UTF-8 whose ASCII letters are in upper case in the catalog", "cpuarch=armv8&gr%C3%96sse=prod")
	ok("an attribute in UTF-8", "attrgr%C3%B6%C3%9Fer=%C3%9F&cpuarch=armv8")
	ok("a name of reserved characters", "cpuarch=armv8&x%2By%3D1%262=prod")
	ok("a name with a slash", "a%2Fb=prod&cpuarch=armv8")
	ok("names beyond 16 bits", "cpuarch=armv8&%EF%BF%BD=prod&%F0%9F%98%80=prod")
	ok("a query that is not canonical", "CPUARCH=ARMV8&OS=PROD&ATTRGAMER=PROD")
	ok("unknown parameters, tracks and attributes", "attrflying=prod&attrgamer=nightly&coffee=beta&cpuarch=armv8")
	ok("another letter than the catalog's", "cpuarch=armv8&gr%C3%B6sse=prod")
	ok("an unknown track of the operating system, and an app", "attrgamer=beta&cpuarch=armv8&os=nightly")
	ok("an unknown architecture, and an app", "attrgamer=beta&cpuarch=riscv")
	ok("256 items", "attrall=prod&cpuarch=none")
	ok("256 items, the last one held", "attrall=prod&cpuarch=none", md5Of("c255", "1"))
	ok("256 items, the first one held", "attrall=prod&cpuarch=none", md5Of("c000", "1"))
	ok("256 items, 64 held", "attrall=prod&cpuarch=none", manyHeld(64))
	ok("the manifest", "cpuarch=armv8&payloadtype=metadataonly")
	ok("the manifest of a set", "attrgamer=prod&cpuarch=armv8&payloadtype=metadataonly")
	ok("the manifest of 256 items", "attrall=prod&cpuarch=none&payloadtype=metadataonly")
	ok("the manifest, something held", "attrgamer=prod&cpuarch=armv8&payloadtype=metadataonly", board)

	ok("a statement; whoever signs sets the epoch, which is 0 here", "attrgamer=prod&cpuarch=armv8&payloadtype=statement")
	ok("a statement, everything held", "cpuarch=armv8&payloadtype=statement", osProd)
	add(404, "a statement about nothing", "cpuarch=riscv&payloadtype=statement")

	staged := func(status int, why, cohort, query string, held ...string) {
		add(status, why, query, held...)
		all[len(all)-1].cohort = cohort
	}
	pump := func(version string) string { return md5Of("pump", version) }
	const wet = "attrwet=prod&cpuarch=x"
	staged(200, "in no rollout: the oldest release", "", wet)
	staged(304, "in no rollout, and up to date", "", wet, pump("1.0"))
	staged(200, "in the older rollout: its floor first", "winter~9000", wet)
	staged(200, "in the older rollout, its floor held", "winter~9000", wet, pump("2.0"))
	staged(200, "in the older rollout, its floor passed", "winter~9000", wet, pump("2.1"))
	staged(200, "in the older rollout, another floor than its own held", "winter~9000", wet, pump("3.0"))
	staged(200, "in the newer rollout: the oldest floor first", "spring~500.winter~9000", wet)
	staged(200, "in the newer rollout alone", "spring~500", wet)
	staged(200, "in the newer rollout, the first floor held", "spring~500", wet, pump("2.0"))
	staged(200, "in the newer rollout, the second floor held", "spring~500", wet, sha256Of("pump", "3.0"))
	staged(200, "in the newer rollout, the second floor passed", "spring~500", wet, pump("3.2"))
	staged(200, "in the newer rollout, the older release held: it has passed one of two floors", "spring~500", wet, pump("3.5"))
	staged(304, "in the newer rollout, and up to date", "spring~500", wet, pump("4.0"), md5Of("valve", "2"))
	staged(200, "out of the newer rollout, its release held: no floor of the older one", "winter~9000", wet, pump("4.0"))
	staged(200, "in the larger of two shares only", "spring~2000", wet)
	staged(200, "in a smaller share than there is now", "spring~100.winter~100", wet)
	staged(200, "in a larger share than there is now: in none of it", "winter~9001", wet)
	staged(200, "an attribute that only the newer release has, and it gets that one", "spring~500", "attrnew=prod&cpuarch=x", pump("3.0"))
	staged(404, "an attribute that only the newer release has, and it gets another one", "winter~9000", "attrnew=prod&cpuarch=x")
	staged(200, "an app by its name", "winter~9000", "cpuarch=x&pump=prod", pump("2.0"))
	staged(404, "rolled out over nothing", "", "cpuarch=x&valve=prod")
	staged(200, "rolled out over nothing, and in it", "spring~500", "cpuarch=x&valve=prod")
	staged(200, "what is no cohort", "spring~x.~5.SPRING~500.spring~10000.winter", wet)
	staged(200, "a cohort that is too long", "spring~500."+strings.Repeat("a~1.", 300), wet)
	staged(200, "the statement of the oldest release", "", wet+"&payloadtype=statement")
	staged(200, "the statement of a floor", "spring~500", wet+"&payloadtype=statement")
	staged(200, "the statement of the next floor", "spring~500", wet+"&payloadtype=statement", pump("2.0"))
	staged(200, "the statement of the newest release", "spring~500", wet+"&payloadtype=statement", pump("3.0"))
	add(200, "a slot alone is no cohort: the viewer function makes one of it", wet+"&slot=1")
	add(400, "no slot", wet+"&slot=10000")

	set := "attrgamer=prod&cpuarch=armv8" // os_armv8 1.1.0, scoreboard 1.0.0, videoStreamer 0.0.1
	ok("the first of three held", set, osProd)
	ok("the second of three held", set, board)
	ok("the third of three held", set, video)
	ok("two of three held", set, osProd, video)
	ok("held by SHA-256", set, sha256Of("scoreboard", "1.0.0"))
	ok("held by both digests", set, board, sha256Of("scoreboard", "1.0.0"))
	ok("held releases of another track", set, osBeta, md5Of("scoreboard", "2.0.0"))
	ok("held items of another device", set, md5Of("modemFW", "1.0"))
	ok("held nothing that is known", set, strings.Repeat("0", 32))
	ok("held in upper case", set, strings.ToUpper(board))
	ok("what is no digest is passed over", set, "x", board, "*")
	add(304, "everything held", set, osProd, board, video)
	add(304, "everything held, in another order", set, video, osProd, board)
	add(304, "everything held, and more", set, osProd, board, video, md5Of("modemFW", "1.0"))
	add(304, "everything held, by different digests", set, osProd, sha256Of("scoreboard", "1.0.0"), video)
	add(304, "the only item held", "cpuarch=armv8", osProd)
	add(304, "everything held, and the manifest asked for", set+"&payloadtype=metadataonly", osProd, board, video)
	add(304, "both releases of one app held", "attrcamera=beta&cpuarch=armv8&videostreamer=prod", osProd, video, md5Of("videoStreamer", "0.1.2"))
	ok("one of two releases of one app held", "attrcamera=beta&cpuarch=armv8&videostreamer=prod", video)

	add(404, "an unknown architecture", "cpuarch=riscv")
	add(404, "an unknown track", "cpuarch=armv8&os=nightly")
	add(404, "tracks do not fall back", "attrcellular=beta&cpuarch=riscv")
	add(404, "an app's name where an architecture should be", "cpuarch=os_armv8")
	add(404, "an unknown architecture, everything held", "cpuarch=riscv", osProd)
	add(400, "257 items", "attrcrowd=prod&cpuarch=none")
	add(400, "257 items, all held makes no difference", "attrcrowd=prod&cpuarch=none", osProd)
	add(400, "no query", "")
	add(400, "no architecture", "os=beta")
	add(400, "another payload type", "cpuarch=armv8&payloadtype=zip")
	add(400, "a broken escape", "cpuarch=%zz")
	add(400, "a control character", "cpuarch=%00")
	add(400, "no UTF-8", "cpuarch=%FF")
	add(400, "a long value", "cpuarch="+strings.Repeat("x", 256))
	add(400, "129 parameters", strings.Repeat("cpuarch=x&", 129))
	add(400, "a long query", "cpuarch=armv8"+strings.Repeat("&", 8000))
	add(400, "65 digests", "cpuarch=armv8", manyDigests(65))
	add(400, "a long header", "cpuarch=armv8", strings.Repeat(",", 20481))
	add(400, "the query's fault before the header's", "os=beta", manyDigests(65))
	all = append(all,
		decideInput{why: "nothing is published", query: "cpuarch=armv8", status: 503, noIndex: true},
		decideInput{why: "nothing is published, everything held", query: "cpuarch=armv8", held: osProd, status: 503, noIndex: true},
		decideInput{why: "a bad request, before nothing is published", query: "cpuarch=", status: 400, noIndex: true},
		decideInput{why: "bad digests, before nothing is published", query: "cpuarch=armv8", held: manyDigests(65), status: 400, noIndex: true},
	)
	return all
}

func manyHeld(n int) string {
	var all []string
	for i := range n {
		all = append(all, md5Of(fmt.Sprintf("c%03d", i*3), "1"))
	}
	return strings.Join(all, ",")
}
