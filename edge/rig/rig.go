package rig

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/lambdas"
)

// Options are what a rig is made of.
type Options struct {
	Objects builder.Objects // what the bucket holds
	// Dist is the folder with function.js, response.js and edge.zip (edge/cmd/pack makes them).
	Dist string
	Addr string // of the viewers' side; empty: a free port of 127.0.0.1
	// Now tells the time before Advance adds to it; nil: time.Now.
	Now     func() time.Time
	OnTrace func(Trace)           // called once a request is answered; may be nil
	OnLog   func(line string)     // what the edge's functions print; may be nil
	Log     *slog.Logger          // the composer's; nil: none
	Change  func(d *Distribution) // changes what Precast declares; may be nil
	List    bool                  // the bucket may be listed: S3 answers 404 for what is missing, not 403
	// FirstByte is how long the composer may take to begin; 0: what it has on Lambda. Below its origin's ReadTimeout.
	FirstByte time.Duration
	Compose   func(builder.Objects) http.Handler // in place of the composer; nil: the composer
	Lambda    Lambda                             // how the composer is run
}

// Rig is a running distribution with its origins.
type Rig struct {
	*CloudFront
	URL      string // for viewers
	S3       *S3
	Composer *FunctionURL
	Store    *KeyValueStore // of the table of rollouts; the builder writes it

	opt     Options
	dir     string // of the unpacked edge.zip
	index   string // ETag of the index at the start
	servers []*http.Server
	serving sync.WaitGroup
	clock   clock
}

// clock is a time that can be put forward.
type clock struct {
	mu    sync.Mutex
	base  func() time.Time
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base().Add(c.ahead)
}

const (
	bucket = "precast-rig"
	// The bucket's region is not the one that the function runs in, as at most edge locations.
	region     = "eu-central-1"
	edgeRegion = "ap-northeast-1"
)

// Start starts everything; Close ends it.
func Start(ctx context.Context, opt Options) (*Rig, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.FirstByte == 0 {
		opt.FirstByte = lambdas.FirstByte
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	r := &Rig{opt: opt, clock: clock{base: opt.Now}}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start rig: %w", err), r.Close())
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context) error {
	// CloudFront's own identity, and the role of the Lambda@Edge function.
	oac := aws.Credentials{AccessKeyID: "AKIACLOUDFRONT", SecretAccessKey: "cloudfront-secret"}
	role := aws.Credentials{AccessKeyID: "ASIAEDGEROLE", SecretAccessKey: "edge-secret", SessionToken: "edge-session"}
	now := r.clock.now
	r.S3 = &S3{objects: r.opt.Objects, bucket: bucket, region: region, now: now, list: r.opt.List,
		keys:  map[string]aws.Credentials{oac.AccessKeyID: oac, role.AccessKeyID: role},
		other: make(map[string][]byte)}
	s3URL, err := r.listen("127.0.0.1:0", r.S3)
	if err != nil {
		return err
	}
	objects := r.S3.Objects()
	var compose http.Handler = &lambdas.Composer{Objects: objects, Composer: builder.NewComposer(objects),
		FirstByte: r.opt.FirstByte, Log: r.opt.Log}
	if r.opt.Compose != nil {
		compose = r.opt.Compose(objects)
	}
	r.Composer = &FunctionURL{invoke: lambdas.FunctionURL(compose), lambda: r.opt.Lambda, region: region, now: now, keys: map[string]aws.Credentials{oac.AccessKeyID: oac}}
	composerURL, err := r.listen("127.0.0.1:0", r.Composer)
	if err != nil {
		return err
	}
	settings := map[string]string{"X-Precast-Bucket": bucket, "X-Precast-Region": region}
	r.Store = NewKeyValueStore("arn:aws:cloudfront::111122223333:key-value-store/11111111-2222-3333-4444-555555555555")
	d := Precast(
		&Origin{Name: "s3", URL: s3URL + "/" + bucket, Domain: bucket + ".s3." + region + ".amazonaws.com", Region: region, S3: true, Service: "s3", CustomHeaders: settings},
		&Origin{Name: "composer", URL: composerURL, Domain: "composer.lambda-url." + region + ".on.aws", Region: region, Service: "lambda", CustomHeaders: settings,
			ReadTimeout: time.Minute}, // the most (terraform/edge.tf)
		r.Store,
	)
	if r.opt.Change != nil {
		r.opt.Change(&d)
	}
	if len(d.Stores) > 1 {
		return fmt.Errorf("associate key value stores: %d, and a function can have only one", len(d.Stores))
	}
	function, response := filepath.Join(r.opt.Dist, "function.js"), filepath.Join(r.opt.Dist, "response.js")
	handler, err := r.unpack(filepath.Join(r.opt.Dist, "edge.zip"), s3URL, d.Limits)
	if err != nil {
		return err
	}
	for _, name := range []string{function, response} {
		if info, err := os.Stat(name); err != nil {
			return fmt.Errorf("find the Function: %w", err)
		} else if info.Size() > int64(d.Limits.Function) { // cloudfront-limits.html, limits-functions
			return fmt.Errorf("publish %s: %d bytes, more than %d", name, info.Size(), d.Limits.Function)
		}
	}
	h, err := startHost(ctx, hostOptions{request: function, response: response, handler: handler, now: now, log: r.opt.OnLog, env: []string{
		"AWS_REGION=" + edgeRegion, "AWS_ACCESS_KEY_ID=" + role.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + role.SecretAccessKey, "AWS_SESSION_TOKEN=" + role.SessionToken,
	}})
	if err != nil {
		return err
	}
	if info, err := r.opt.Objects.Stat(ctx, layout.IndexKey); err == nil {
		r.index = info.ETag
	}
	r.CloudFront = newCloudFront(d, h, oac, now, r.opt.OnTrace)
	addr := r.opt.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	r.URL, err = r.listen(addr, r.CloudFront)
	return err
}

// maxHeader is more than any limit of CloudFront's: the rig refuses, not the server.
const maxHeader = 4 << 20

func (r *Rig) listen(addr string, h http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(r.opt.Log.Handler(), slog.LevelDebug)}
	r.servers = append(r.servers, srv)
	r.serving.Go(func() { _ = srv.Serve(l) }) // ends with Close
	return "http://" + l.Addr().String(), nil
}

// unpack unpacks edge.zip as Lambda does, and tells the function where this S3 is, as edge/cmd/pack -endpoint
// would. It returns the file of the handler.
func (r *Rig) unpack(name, endpoint string, limits Limits) (handler string, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("find the origin-request function: %w", err)
	}
	if len(data) > limits.Package { // cloudfront-limits.html, limits-lambda-at-edge
		return "", fmt.Errorf("publish %s: %d bytes, more than %d", name, len(data), limits.Package)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	if r.dir, err = os.MkdirTemp("", "precast-rig-"); err != nil {
		return "", err
	}
	config := make(map[string]any)
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) || strings.HasSuffix(f.Name, "/") {
			continue
		}
		content, err := readZipped(f)
		if err != nil {
			return "", fmt.Errorf("unpack %s from %s: %w", f.Name, name, err)
		}
		if f.Name == "config.json" {
			if err := json.Unmarshal(content, &config); err != nil {
				return "", fmt.Errorf("read config.json of %s: %w", name, err)
			}
			continue
		}
		to := filepath.Join(r.dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			return "", err
		}
	}
	config["endpoint"] = endpoint
	content, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "config.json"), content, 0o600); err != nil {
		return "", err
	}
	return filepath.Join(r.dir, "index.mjs"), nil
}

func readZipped(f *zip.File) ([]byte, error) {
	body, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// Advance puts the clock forward, for the cache, the signatures and the edge's functions.
func (r *Rig) Advance(d time.Duration) {
	r.clock.mu.Lock()
	defer r.clock.mu.Unlock()
	r.clock.ahead += d
}

// Now is the time on the rig's clock.
func (r *Rig) Now() time.Time { return r.clock.now() }

// Close ends everything.
func (r *Rig) Close() error {
	for _, srv := range r.servers {
		_ = srv.Close() // its listener is closed, whatever it says
	}
	r.serving.Wait()
	if r.CloudFront != nil {
		r.background.Wait()
		r.host.close()
	}
	if r.dir == "" {
		return nil
	}
	return os.RemoveAll(r.dir)
}
