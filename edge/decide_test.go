package edge_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/index"

	"pgregory.net/rapid"
)

// The sample's selections on the sample's data.
func TestSampleSelections(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"cpuArch=armv8", "os_armv8_1.1.0"},
		{"cpuArch=armv8&os=beta", "os_armv8_2.0.0"},
		{"cpuArch=armv8&attrGamer=prod", "os_armv8_1.1.0 scoreboard_1.0.0 videoStreamer_0.0.1"},
		{"cpuArch=armv8&attrGamer=prod&attrCellular=prod", "modemFW_1.0 os_armv8_1.1.0 scoreboard_1.0.0 videoStreamer_0.0.1"},
		{"cpuArch=armv8&attrGamer=beta", "os_armv8_1.1.0 scoreboard_2.0.0"},
		{"cpuArch=armv8&attrGamer=prod&attrCamera=beta", "os_armv8_1.1.0 scoreboard_1.0.0 videoStreamer_0.1.2 videoStreamer_0.0.1"},
	} {
		d := edge.Decide(sampleIndex(), c.query, "")
		if d.Status != edge.StatusOK || d.Error != "" || files(d.Set) != c.want {
			t.Errorf("%s: status %d %s, got  %s\nwant %s", c.query, d.Status, d.Error, files(d.Set), c.want)
		}
		if !d.Mask.Empty() || d.Selection.Payload != edge.FullPayload {
			t.Errorf("%s: held %s, payload %d", c.query, d.Mask, d.Selection.Payload)
		}
		equalsReference(t, sampleIndexItems(), c.query, "")
	}
}

// What the sample got wrong, and what it got right in odd corners.
func TestQueries(t *testing.T) {
	for _, c := range []struct{ name, query, want string }{
		{"app by its name", "cpuArch=armv7&videoStreamer=prod", "os_armv7_1.0.0 videoStreamer_0.0.1"},
		{"app in lower case", "cpuArch=armv7&videostreamer=beta&modemfw=prod", "modemFW_1.0 os_armv7_1.0.0 videoStreamer_0.1.2"},
		{"app in upper case", "CPUARCH=ARMV7&VIDEOSTREAMER=PROD&MODEMFW=PROD", "modemFW_1.0 os_armv7_1.0.0 videoStreamer_0.0.1"},
		{"two versions of one app, by attribute and name", "cpuArch=armv7&attrCamera=beta&videoStreamer=prod", "os_armv7_1.0.0 videoStreamer_0.1.2 videoStreamer_0.0.1"},
		{"one item twice", "cpuArch=armv7&attrCamera=prod&attrGamer=prod&videoStreamer=prod", "os_armv7_1.0.0 scoreboard_1.0.0 videoStreamer_0.0.1"},
		{"unknown parameters", "cpuArch=armv7&utm_source=x&attrFlying=prod&coffee=beta", "os_armv7_1.0.0"},
		{"unknown tracks", "cpuArch=armv7&attrGamer=nightly&scoreboard=2", "os_armv7_1.0.0"},
		{"no fallback between tracks", "cpuArch=armv7&attrCellular=beta", "os_armv7_1.0.0"},
		{"unknown OS track", "cpuArch=armv7&os=nightly&attrGamer=beta", "scoreboard_2.0.0"},
		{"unknown architecture", "cpuArch=riscv&attrGamer=beta", "scoreboard_2.0.0"},
		{"blank values", "cpuArch=&cpuArch=armv7&os=&attrGamer=&scoreboard", "os_armv7_1.0.0"},
		{"first of repeated values", "cpuArch=armv7&cpuArch=armv8&CPUARCH=x&os=beta&os=prod", "os_armv7_2.0.0"},
		{"first that is not blank", "cpuArch=armv7&os=&os=beta&os=prod", "os_armv7_2.0.0"},
		{"os by name of its app", "cpuArch=armv7&os_armv8=beta", "os_armv7_1.0.0 os_armv8_2.0.0"},
		{"attr without a name", "cpuArch=armv7&attr=prod", "os_armv7_1.0.0"},
		{"percent escapes", "%63puArch=%61rmv7&attr%47amer=bet%61", "os_armv7_1.0.0 scoreboard_2.0.0"},
		{"stray separators", "&&cpuArch=armv7&=&=x&", "os_armv7_1.0.0"},
		{"a value with =", "cpuArch=armv7&scoreboard=prod=", "os_armv7_1.0.0"},
		{"full payload", "cpuArch=armv7&payloadType=FULLPAYLOAD", "os_armv7_1.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := edge.Decide(sampleIndex(), c.query, "")
			if d.Status != edge.StatusOK || files(d.Set) != c.want || d.Selection.Payload != edge.FullPayload {
				t.Errorf("status %d %s, got %s\nwant %s", d.Status, d.Error, files(d.Set), c.want)
			}
			equalsReference(t, sampleIndexItems(), c.query, "")
		})
	}
	d := edge.Decide(sampleIndex(), "cpuArch=armv7&payloadType=MetadataOnly", "")
	if d.Status != edge.StatusOK || d.Selection.Payload != edge.MetadataOnly {
		t.Errorf("metadataOnly: status %d, payload %d", d.Status, d.Selection.Payload)
	}
}

// One release on three tracks, with another on a track between them, is still one file.
func TestOneReleaseOnSeveralTracks(t *testing.T) {
	items := []index.Item{
		item("app", "beta", "1"), item("app", "prod", "2", "b"), item("app", "stage", "1", "a"), item("app", "test", "2", "c"),
	}
	const query = "cpuArch=x&app=beta&attrA=stage&attrB=prod&attrC=test"
	d := edge.Decide(indexOf(items...), query, "")
	if want := "app_1 app_2"; d.Status != edge.StatusOK || files(d.Set) != want {
		t.Errorf("status %d, got %q, want %q", d.Status, files(d.Set), want)
	}
	equalsReference(t, items, query, "")
}

// Two releases are two files, even if one thing about them is the same.
func TestSimilarReleases(t *testing.T) {
	one, renamed, changed := item("app", "a", "1"), item("app", "b", "1"), item("app", "c", "1", "x")
	renamed.Version = "2"                         // the same content under a new version
	changed.SHA256[0]++                           // no sound catalog has this
	other := item("bpp", "d", "1", "y")           // another app
	other.MD5, other.SHA256 = one.MD5, one.SHA256 // of the same content
	items := []index.Item{one, renamed, changed, other}
	for query, n := range map[string]int{"cpuArch=x&app=a&attrX=c": 2, "cpuArch=x&app=b&attrY=d": 2, "cpuArch=x&app=a&attrY=d": 2, "cpuArch=x&app=b&attrX=c": 2} {
		if d := edge.Decide(indexOf(items...), query, ""); d.Set.Len() != n {
			t.Errorf("%s: %s, want %d files", query, files(d.Set), n)
		}
		equalsReference(t, items, query, "")
	}
	// Both releases of one content at once: a device that holds it holds both.
	items = []index.Item{item("app", "a", "1"), renamed}
	items[1].Attrs = []string{"x"}
	d := edge.Decide(indexOf(items...), "cpuArch=x&app=a&attrX=b", md5Of("app", "1"))
	if d.Status != edge.StatusNotModified || files(d.Set) != "app_1 app_2" {
		t.Errorf("status %d, %s", d.Status, files(d.Set))
	}
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", edge.MaxParam)
	for _, c := range []struct {
		name, query, held string
		status            int
		message           string
	}{
		{"no query", "", "", 400, "Missing cpuArch query param"},
		{"no cpuArch", "os=prod", "", 400, "Missing cpuArch query param"},
		{"blank cpuArch", "cpuArch=&os=prod", "", 400, "Missing cpuArch query param"},
		{"payload type", "cpuArch=armv8&payloadType=half", "", 400, "Invalid payloadType param"},
		{"cpuArch before payload type", "payloadType=half", "", 400, "Missing cpuArch query param"},
		{"nothing matches", "cpuArch=riscv", "", 404, "No deployment package found"},
		{"nothing matches on the track", "cpuArch=armv8&os=nightly", "", 404, "No deployment package found"},
		{"nothing matches whatever is held", "cpuArch=riscv", md5Of("os_armv8", "1.1.0"), 404, "No deployment package found"},
		{"broken escape", "cpuArch=armv8&x=%zz", "", 400, "Query has a broken percent escape"},
		{"escape cut short", "cpuArch=armv8%4", "", 400, "Query has a broken percent escape"},
		{"escape cut shorter", "cpuArch=armv8%", "", 400, "Query has a broken percent escape"},
		{"NUL", "cpuArch=armv8\x00", "", 400, "Query has a control character"},
		{"escaped NUL", "cpuArch=armv8%00", "", 400, "Query has a control character"},
		{"escaped new line in a key", "cpuArch=armv8&a%0ab=prod", "", 400, "Query has a control character"},
		{"broken UTF-8", "cpuArch=%ff", "", 400, "Query is not UTF-8"},
		{"overlong UTF-8", "cpuArch=%c0%af", "", 400, "Query is not UTF-8"},
		{"long value", "cpuArch=" + long + "x", "", 400, "Query has a key or value longer than 255 bytes"},
		{"long key", "cpuArch=armv8&" + long + "x=prod", "", 400, "Query has a key or value longer than 255 bytes"},
		{"longest value", "cpuArch=armv8&a=" + long, "", 200, ""},
		{"longest escaped value", "cpuArch=armv8&a=" + strings.Repeat("%41", 255), "", 200, ""},
		{"long query", "cpuArch=armv8&" + strings.Repeat("&", edge.MaxQuery), "", 400, "Query is longer than 8000 bytes"},
		{"longest query", "cpuArch=armv8" + strings.Repeat("&", edge.MaxQuery-len("cpuArch=armv8")), "", 200, ""},
		{"long canonical query", "cpuArch=armv8" + distinctParams(20, strings.Repeat("é", 120)), "", 400, "Query is longer than 8000 bytes"},
		{"many parameters", "cpuArch=armv8" + strings.Repeat("&a=b", edge.MaxParams), "", 400, "Query has more than 128 parameters"},
		{"most parameters", "cpuArch=armv8" + strings.Repeat("&a=b", edge.MaxParams-1), "", 200, ""},
		{"blank parameters do not count", "cpuArch=armv8" + strings.Repeat("&a=", 2*edge.MaxParams), "", 200, ""},
		{"many digests", "cpuArch=armv8", manyDigests(edge.MaxTags + 1), 400, "If-None-Match has more than 64 digests"},
		{"most digests", "cpuArch=armv8", manyDigests(edge.MaxTags), 200, ""},
		{"most digests, again and again", "cpuArch=armv8", strings.Repeat(manyDigests(edge.MaxTags)+",", 4) + "x", 400, "If-None-Match is a list of more than 256"},
		{"most digests, four times", "cpuArch=armv8", strings.Repeat(","+manyDigests(edge.MaxTags), 4)[1:], 200, ""},
		{"10,000 digests", "cpuArch=armv8", manyDigests(10_000), 400, "If-None-Match is longer than 20480 bytes"},
		{"1 MB of query", "cpuArch=armv8&a=" + strings.Repeat("%", 1<<20), "", 400, "Query is longer than 8000 bytes"},
		{"1 MB of tags", "cpuArch=armv8", strings.Repeat(`W/"`, 1<<20/3), 400, "If-None-Match is longer than 20480 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := edge.Decide(sampleIndex(), c.query, c.held)
			if d.Status != c.status || d.Error != c.message {
				t.Errorf("status %d %q, want %d %q", d.Status, d.Error, c.status, c.message)
			}
			equalsReference(t, sampleIndexItems(), c.query, c.held)
		})
	}
}

// distinctParams returns n parameters with a value each.
func distinctParams(n int, value string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("&p" + string(rune('a'+i)) + "=" + value)
	}
	return b.String()
}

func manyDigests(n int) string {
	digests := make([]string, n)
	for i := range digests {
		digests[i] = md5Of("unknown", string(rune('0'+i)))
	}
	return strings.Join(digests, ",")
}

func TestSetTooLarge(t *testing.T) {
	var items []index.Item
	for i := range edge.MaxSet + 1 {
		items = append(items, item("app"+string(rune('A'+i/26))+string(rune('a'+i%26)), "prod", "1", "all"))
	}
	d := edge.Decide(indexOf(items...), "cpuArch=x&attrAll=prod", "")
	if want := "Selection matches 257 packages, more than 256"; d.Status != 400 || d.Error != want {
		t.Errorf("status %d %q, want 400 %q", d.Status, d.Error, want)
	}
	d = edge.Decide(indexOf(items[1:]...), "cpuArch=x&attrAll=prod", "")
	if d.Status != 200 || d.Set.Len() != edge.MaxSet {
		t.Errorf("a set of %d: status %d %q", edge.MaxSet, d.Status, d.Error)
	}
}

func TestBeforeTheFirstPublish(t *testing.T) {
	d := edge.Decide(nil, "cpuArch=armv8", "")
	if d.Status != edge.StatusUnavailable || d.Error != "No catalog has been published yet" {
		t.Errorf("status %d %q", d.Status, d.Error)
	}
	// What no index could answer is told at once.
	if d := edge.Decide(nil, "", ""); d.Status != edge.StatusBadRequest || d.Error != "Missing cpuArch query param" {
		t.Errorf("without cpuArch: status %d %q", d.Status, d.Error)
	}
	if d := edge.Decide(nil, "cpuArch=armv8", manyDigests(65)); d.Status != edge.StatusBadRequest {
		t.Errorf("too many digests: status %d %q", d.Status, d.Error)
	}
	empty := indexOf()
	if d := edge.Decide(empty, "cpuArch=armv8", ""); d.Status != edge.StatusNotFound {
		t.Errorf("empty index: status %d %q", d.Status, d.Error)
	}
}

func TestHeld(t *testing.T) {
	const query = "cpuArch=armv8&attrGamer=prod"
	os5, os256 := md5Of("os_armv8", "1.1.0"), sha256Of("os_armv8", "1.1.0")
	score, video := md5Of("scoreboard", "1.0.0"), sha256Of("videoStreamer", "0.0.1")
	for _, c := range []struct {
		name, held, mask string
		status           int
	}{
		{"nothing", "", "0", 200},
		{"one MD5", os5, "1", 200},
		{"one SHA-256", os256, "1", 200},
		{"both of one", os5 + "," + os256, "1", 200},
		{"quoted", `"` + score + `"`, "2", 200},
		{"weak", `W/"` + video + `"`, "4", 200},
		{"upper case", strings.ToUpper(os5), "1", 200},
		{"spaces", " \t " + os5 + " , " + score + "\t", "3", 200},
		{"trailing comma", os5 + ",", "1", 200},
		{"star", "*", "0", 200},
		{"star and one", "*, " + os5, "1", 200},
		{"unknown ones", manyDigests(3) + "," + os5, "1", 200},
		{"another release", md5Of("os_armv8", "2.0.0"), "0", 200},
		{"cut short", os5[:31], "0", 200},
		{"MD5 that begins a SHA-256", os256[:32], "0", 200},
		{"SHA-256 that begins with an MD5", os5 + strings.Repeat("0", 32), "0", 200},
		{"all", os5 + "," + score + "," + video, "7", 304},
		{"all and more", os5 + "," + score + "," + video + "," + manyDigests(9), "7", 304},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := edge.Decide(sampleIndex(), query, c.held)
			if d.Status != c.status || d.Mask.String() != c.mask {
				t.Errorf("status %d, mask %s, want %d, %s", d.Status, d.Mask, c.status, c.mask)
			}
			equalsReference(t, sampleIndexItems(), query, c.held)
		})
	}
}

// Whatever the catalog and the query, the answer is the reference's.
func TestEqualsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := catalogs().Draw(t, "catalog")
		query := spellQuery(t, pairs().Draw(t, "params"))
		var digests []string
		for _, it := range items {
			switch rapid.IntRange(0, 3).Draw(t, "held") {
			case 0:
				digests = append(digests, hex.EncodeToString(it.MD5[:]))
			case 1:
				digests = append(digests, hex.EncodeToString(it.SHA256[:]))
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "holds all") == 0 {
			digests = nil
			for _, it := range reference(items, query, "").items {
				digests = append(digests, hex.EncodeToString(it.MD5[:]))
			}
		}
		equalsReference(t, items, query, spellTags(t, digests[:min(len(digests), edge.MaxTags)]))
	})
}

func TestReservedApp(t *testing.T) {
	for _, app := range []string{"os", "OS", "cpuArch", "cpuarch", "payloadType", "PAYLOADTYPE", "attr", "attrGamer", "Attrition"} {
		if !edge.ReservedApp(app) {
			t.Errorf("%s is not reserved", app)
		}
		// It could not be had by its name, whatever the track.
		d := edge.Decide(indexOf(item(app, "prod", "1")), "cpuArch=x&"+app+"=prod", "")
		if d.Status == edge.StatusOK {
			t.Errorf("%s is reserved, and can be had", app)
		}
	}
	for _, app := range []string{"os_armv8", "scoreboard", "oss", "cpu", "payload", "at", "myattr"} {
		if edge.ReservedApp(app) {
			t.Errorf("%s is reserved", app)
		}
		d := edge.Decide(indexOf(item(app, "prod", "1")), "cpuArch=x&"+app+"=prod", "")
		if d.Status != edge.StatusOK {
			t.Errorf("%s cannot be had: status %d", app, d.Status)
		}
	}
}
