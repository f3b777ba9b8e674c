package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/precast-ota/precast/internal/run/admin"
	"github.com/precast-ota/precast/internal/run/limits"
	"github.com/precast-ota/precast/internal/run/pipeline"
	"github.com/precast-ota/precast/internal/run/reload"
	"github.com/precast-ota/precast/internal/run/server"
)

// listenFlags say where precast serve listens, and for whom.
type listenFlags struct {
	Addr           string `help:"Address and port to listen on for devices." env:"PRECAST_ADDR" default:"127.0.0.1:8080"`
	TLSCert        string `help:"TLS certificate for devices, with its chain, in PEM. Read again when it changes." env:"PRECAST_TLS_CERT" placeholder:"FILE"`
	TLSKey         string `help:"Key of --tls-cert." env:"PRECAST_TLS_KEY" placeholder:"FILE"`
	AdminAddr      string `help:"Address and port for metrics, probes and, with --admin-tokens, the admin API. Devices then get no metrics." env:"PRECAST_ADMIN_ADDR" placeholder:"ADDR"`
	AdminTokens    string `help:"File of admin tokens, one line each: NAME ROLE TOKEN. ROLE is read, release or admin; TOKEN may be sha256:DIGEST. Read again when it changes." env:"PRECAST_ADMIN_TOKENS" placeholder:"FILE"`
	AdminTLSCert   string `help:"TLS certificate of --admin-addr." env:"PRECAST_ADMIN_TLS_CERT" placeholder:"FILE"`
	AdminTLSKey    string `help:"Key of --admin-tls-cert." env:"PRECAST_ADMIN_TLS_KEY" placeholder:"FILE"`
	AdminBehindTLS bool   `help:"Something in front of --admin-addr does TLS: take tokens over plain HTTP." env:"PRECAST_ADMIN_BEHIND_TLS" name:"admin-behind-tls"`
	AccessLog      string `help:"Append a line of JSON for every request of a device to this file, - for standard output. It holds neither addresses nor what a device has." env:"PRECAST_ACCESS_LOG" placeholder:"FILE"`
}

func (f listenFlags) check() error {
	if (f.TLSCert == "") != (f.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if (f.AdminTLSCert == "") != (f.AdminTLSKey == "") {
		return errors.New("--admin-tls-cert and --admin-tls-key go together")
	}
	if f.AdminAddr == "" && f.AdminTokens+f.AdminTLSCert != "" {
		return errors.New("--admin-tokens and --admin-tls-cert go with --admin-addr")
	}
	return nil
}

// doors are all that a server listens on.
type doors struct {
	url      string // for devices
	adminURL string // empty: there is none
	log      *slog.Logger
	max      int // connections of commands
	doors    []door
	files    []io.Closer
}

type door struct {
	listener net.Listener
	handler  http.Handler
}

// doors opens them. Without a pipeline there is no admin API.
func (f listenFlags) doors(front *server.Server, p *pipeline.Pipeline, log *slog.Logger) (_ *doors, err error) {
	devices, commands := limits.Connections()
	d := &doors{log: log, max: commands}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.logAccess(front, f.AccessLog); err != nil {
		return nil, err
	}
	if f.AdminAddr != "" {
		handler, err := f.adminHandler(front, p, log)
		if err != nil {
			return nil, err
		}
		l, err := d.open(f.AdminAddr, commands, f.AdminTLSCert, f.AdminTLSKey, handler)
		if err != nil {
			return nil, fmt.Errorf("listen for administrators: %w", err)
		}
		if d.adminURL = publicURL(l.Addr(), f.AdminTLSCert != ""); f.plain(l.Addr()) {
			return nil, fmt.Errorf("--admin-tokens would be sent in the clear to %s: give --admin-tls-cert and --admin-tls-key, or --admin-behind-tls if something in front does TLS", f.AdminAddr)
		}
		front.MetricsApart()
	}
	l, err := d.open(f.Addr, devices, f.TLSCert, f.TLSKey, front.Handler())
	if err != nil {
		return nil, fmt.Errorf("listen for devices: %w", err)
	}
	d.url = publicURL(l.Addr(), f.TLSCert != "")
	return d, nil
}

// plain tells whether tokens would travel where others may read them.
func (f listenFlags) plain(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return f.AdminTokens != "" && f.AdminTLSCert == "" && !f.AdminBehindTLS && !(ok && tcp.IP.IsLoopback())
}

// adminHandler answers on the admin address.
func (f listenFlags) adminHandler(front *server.Server, p *pipeline.Pipeline, log *slog.Logger) (http.Handler, error) {
	mux := http.NewServeMux()
	front.Watch(mux)
	if f.AdminTokens == "" {
		return mux, nil
	}
	tokens, err := reload.New(log, func() (admin.Tokens, error) {
		tokens, exposed, err := admin.ReadTokens(f.AdminTokens)
		if exposed {
			log.WarnContext(context.Background(), "everybody on this machine can read admin tokens: chmod o-rwx, or write sha256:DIGEST instead of a token", "file", f.AdminTokens)
		}
		return tokens, err
	}, f.AdminTokens)
	if err != nil {
		return nil, err
	}
	if p == nil {
		mux.HandleFunc("/v1/", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "the data folder is read-only here: ask the server that writes to it", http.StatusServiceUnavailable)
		})
		return mux, nil
	}
	mux.Handle("/v1/", admin.Handler(p, tokens.Get, log))
	return mux, nil
}

func (d *doors) open(addr string, most int, cert, key string, h http.Handler) (net.Listener, error) {
	var cfg *tls.Config
	if cert != "" {
		var err error
		if cfg, err = reload.Certificate(d.log, cert, key); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	d.add(l, most, cfg, h)
	return l, nil
}

func (d *doors) add(l net.Listener, most int, cfg *tls.Config, h http.Handler) {
	l = limits.Listen(l, most, d.log)
	if cfg != nil {
		l = tls.NewListener(l, cfg)
	}
	d.doors = append(d.doors, door{l, h})
}

// announce lets commands on this machine into the data folder's server.
func (d *doors) announce(dir string, p *pipeline.Pipeline) (withdraw func(), err error) {
	l, cfg, endpoint, err := admin.Listen(d.url)
	if err != nil {
		return nil, err
	}
	d.add(l, d.max, cfg, admin.OwnHandler(p, endpoint.Token, d.log))
	return admin.Announce(dir, endpoint)
}

// logAccess has the server log requests to a file.
func (d *doors) logAccess(front *server.Server, file string) error {
	switch file {
	case "":
	case "-":
		front.LogAccess(os.Stdout)
	default:
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return fmt.Errorf("open access log: %w", err)
		}
		d.files = append(d.files, f)
		front.LogAccess(f)
	}
	return nil
}

// serve answers until ctx is done.
func (d *doors) serve(ctx context.Context, g *errgroup.Group) {
	for _, door := range d.doors {
		g.Go(func() error { return listen(ctx, limits.HTTP(door.handler, d.log), door.listener) })
	}
}

func (d *doors) close() {
	for _, door := range d.doors {
		door.listener.Close() // one that was served is closed already
	}
	for _, f := range d.files {
		f.Close()
	}
}

// listen serves until ctx is done, then lets answers under way end.
func listen(ctx context.Context, s *http.Server, l net.Listener) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if s.Shutdown(graceful) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if stop() {
		return fmt.Errorf("serve %s: %w", l.Addr(), err) // nobody asked it to end
	}
	<-ended
	return nil
}

// publicURL is how this machine reaches an address.
func publicURL(a net.Addr, secure bool) string {
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return scheme + a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + net.JoinHostPort(host, port)
}
