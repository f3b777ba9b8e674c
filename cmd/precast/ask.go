package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/files"
	"github.com/precast-ota/precast/internal/format/catalog"
	"github.com/precast-ota/precast/internal/operate/ask"
)

type askCmd struct {
	dataFlag
	buildFlags
	jsonFlag
	Query      []string `arg:"" help:"What the device asks: its query, path or whole URL, or the parameters one by one." sep:"none"`
	Slot       *int     `help:"The slot that the device sends, 0 to 9999." placeholder:"N"`
	Held       string   `help:"What the device holds: digests with commas between them, or @FILE with digests in it: the state of a client, a manifest, or what sha256sum prints." placeholder:"DIGESTS"`
	Generation uint64   `help:"Answer from this generation of the history, not from what is published." placeholder:"G"`
	URL        *url.URL `help:"Ask this server or CDN, instead of looking into the data folder or bucket: http(s)://HOST." name:"url" placeholder:"URL"`
}

func (*askCmd) Help() string {
	return `Tells what a device gets: status, size and object of the answer; for each item the release, whether the device has it,
the parameters that bring it, and the rollouts and floors that decide about it. It names parameters that bring
nothing and, where nothing matches, the items that are near. Without a slot it tells what devices with one get
where rollouts matter. It also tells what the answer will be once the changes that wait are published.

With --url it asks a server. That tells what the device gets, but not why, nor what will come. A URL as QUERY is not
asked: only its query counts.

Exits with 3 if the device gets no package: 400, 404 or 503.

Examples:
  precast ask 'cpuArch=armv8&attrGamer=prod'
  precast ask 'https://packages.example.com/package?cpuArch=armv8&slot=4711'
  precast ask cpuArch=armv8 attrGamer=prod --slot 4711 --held @state.json
  precast ask cpuArch=armv8 --generation 11
  precast ask cpuArch=armv8 --url https://packages.example.com
  precast ask cpuArch=armv8 --json | jq '.items[] | {app, version, by}'`
}

func (c *askCmd) query() string { return ask.Query(strings.Join(c.Query, "&")) }

// Validate finds what is wrong with the command line.
func (c *askCmd) Validate() error {
	if c.Slot != nil {
		if _, slot, err := edge.ParseQuery(c.query()); err == nil && slot != edge.NoSlot {
			return errors.New("the query has a slot already: leave --slot out")
		}
	}
	u := c.URL
	switch {
	case u == nil:
		return nil
	case c.Generation != 0:
		return errors.New("--generation looks into the history: leave --url out")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("--url %s is not http(s)://HOST", u.Redacted())
	}
	return nil
}

func (c *askCmd) Run(ctx context.Context, std streams) error {
	q := ask.Question{Query: c.query()}
	if c.Slot != nil { // the first parameter of a name counts, and there is no other
		q.Query = "slot=" + strconv.Itoa(*c.Slot) + "&" + q.Query
	}
	var err error
	if q.Held, err = heldText(c.Held); err != nil {
		return err
	}
	if other := notDigests(q.Held); len(other) > 0 {
		fmt.Fprintf(std.err, "precast: --held: a server passes over what is not a digest: %.200s\n", strings.Join(other, ", "))
	}
	var rep *ask.Report
	if c.URL != nil {
		rep, err = ask.Live(ctx, askClient(), c.URL, q)
	} else {
		rep, err = c.look(ctx, std, q)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, rep)
	} else {
		err = printAsked(std.out, rep)
	}
	if err == nil && rep.Status >= http.StatusBadRequest {
		err = no("the device gets %d: %s", rep.Status, rep.Error)
	}
	return err
}

// look answers from the data folder or the bucket.
func (c *askCmd) look(ctx context.Context, std streams, q ask.Question) (*ask.Report, error) {
	d, err := c.existing(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	source := ask.Source{Objects: d.objects}
	if c.Generation != 0 {
		source.Index, err = generationOf(ctx, d, c.Generation)
	} else if source.Plan, err = c.planned(ctx, d); err == nil {
		source.Index = source.Plan.Base
	} else {
		fmt.Fprintln(std.err, "precast: what the changes that wait will bring is not shown:", err)
		source.Index, _, err = builder.ReadIndex(ctx, d.objects)
	}
	if err != nil {
		return nil, err
	}
	rep, err := source.Ask(ctx, q)
	if err != nil {
		return nil, err
	}
	rep.Of = d.name
	return rep, nil
}

// plan plans a catalog of items, and writes nothing.
func (f buildFlags) plan(ctx context.Context, d *data, remote bool, items []catalog.Item, opt builder.PlanOptions) (*builder.Plan, error) {
	options, err := f.options(remote, slog.New(slog.DiscardHandler), builder.Silent{})
	if err != nil {
		return nil, err
	}
	return builder.New(builder.Ports{Objects: d.objects}, options).Plan(ctx, items, opt)
}

func (c *askCmd) planned(ctx context.Context, d *data) (*builder.Plan, error) {
	items, err := d.catalog().Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return c.plan(ctx, d, c.remote(), items, builder.PlanOptions{})
}

// askClient waits for no server for ever, and does not follow one that leaves TLS.
func askClient() *http.Client {
	return &http.Client{Timeout: time.Minute, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > 5 {
			return errors.New("too many redirects")
		}
		if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return fmt.Errorf("it redirects to %s, without TLS", req.URL.Redacted())
		}
		return nil
	}}
}

// digests finds SHA-256 digests in a text, and MD5 ones.
var (
	sha256Words = regexp.MustCompile(`\b[0-9a-fA-F]{64}\b`)
	md5Words    = regexp.MustCompile(`\b[0-9a-fA-F]{32}\b`)
	stateLines  = regexp.MustCompile(`(?m)^has ([0-9a-f]{64})$`)
)

// heldText returns what --held says as it stands in If-None-Match.
func heldText(flag string) (string, error) {
	name, isFile := strings.CutPrefix(flag, "@")
	if !isFile {
		return flag, nil
	}
	const longest = 1 << 20
	data, err := files.Read(name, longest)
	if err != nil {
		return "", fmt.Errorf("read --held: %w", err)
	}
	digests := digestsIn(data)
	if len(digests) == 0 {
		return "", fmt.Errorf("read --held: %s has no digests", name)
	}
	return strings.Join(digests, ","), nil
}

// notDigests returns what a server passes over in If-None-Match.
func notDigests(held string) (other []string) {
	for part := range strings.SplitSeq(held, ",") {
		if digests, err := edge.ParseTags(part); err == nil && len(digests) == 0 && strings.TrimSpace(part) != "" {
			other = append(other, strings.TrimSpace(part))
		}
	}
	return other
}

// digestsIn returns the digests of files in the state of a client, which has others as well, or in any other text.
func digestsIn(data []byte) []string {
	var state struct{ Installed []string }
	if err := json.Unmarshal(data, &state); err == nil && len(state.Installed) > 0 {
		return state.Installed
	}
	var digests []string
	for _, m := range stateLines.FindAllSubmatch(data, -1) {
		digests = append(digests, string(m[1]))
	}
	for _, words := range []*regexp.Regexp{sha256Words, md5Words} { // a manifest has both of each file
		if len(digests) == 0 {
			digests = words.FindAllString(string(data), -1)
		}
	}
	slices.Sort(digests)
	return slices.Compact(digests)
}
