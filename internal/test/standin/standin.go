// Package standin starts the stand-in for AWS that tests run against: ministack, a program that
// speaks the protocols of S3, DynamoDB, SQS and others on one loopback port, and forgets everything
// when it ends. Only tests import this package.
//
// install.sh installs it. A test that asks for the stand-in and cannot have it fails.
package standin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	tries      = 3 // somebody else may take the port that was free
	readyAfter = time.Minute
	endAfter   = 10 * time.Second
	logTail    = 4 << 10 // bytes of its log to show
)

// Options change what is started.
type Options struct {
	// Services are those to enable; none means all. The fewer, the faster it starts.
	Services []string
	// Env is added to its environment, "NAME=value".
	Env []string
}

// Server is a running stand-in.
type Server struct {
	// URL is the endpoint of every service: http://127.0.0.1:<port>.
	URL string

	dir   string // its home and temporary files
	log   string // a file
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of the process; valid once ended is closed
}

// Start starts a stand-in and returns when it answers.
func Start(ctx context.Context, opt Options) (*Server, error) {
	python, err := interpreter()
	if err != nil {
		return nil, fmt.Errorf("start AWS stand-in: %w", err)
	}
	for range tries {
		var s *Server
		if s, err = start(ctx, python, opt); err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start AWS stand-in: %w", err)
}

// interpreter finds the virtual environment of install.sh.
func interpreter() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("there is no go.mod above the working directory")
		}
	}
	python := filepath.Join(dir, ".cache", "ministack", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return "", fmt.Errorf("%w: install it with internal/test/standin/install.sh", err)
	}
	return python, nil
}

func start(ctx context.Context, python string, opt Options) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "standin")
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL:   "http://127.0.0.1:" + port,
		dir:   dir,
		log:   filepath.Join(dir, "log"),
		ended: make(chan struct{}),
	}
	if err := s.run(python, port, opt); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		err = fmt.Errorf("%w\n%s", err, s.tail())
		s.Stop()
		return nil, err
	}
	return s, nil
}

// freePort names a port that was free a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find free port: %w", err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

func (s *Server) run(python, port string, opt Options) error {
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(python, "-m", "ministack")
	s.cmd.Dir = s.dir
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// Nothing of the caller's AWS settings, and nothing that listens but the one port.
	s.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + s.dir, "TMPDIR=" + s.dir,
		"BIND_HOST=127.0.0.1", "GATEWAY_PORT=" + port, "MINISTACK_HOST=127.0.0.1",
		"IOT_MTLS_ENABLED=0", "SFTP_ENABLED=0",
		"LOG_LEVEL=WARNING", "SERVICES=" + join(opt.Services),
	}, opt.Env...)
	s.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go s.wait(started)
	return <-started
}

func join(services []string) string {
	var b bytes.Buffer
	for i, name := range services {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
	}
	return b.String()
}

// ready waits until the stand-in answers.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyAfter)
	defer cancel()
	for {
		if s.answers(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for it to be ready: %w", ctx.Err())
		case <-s.ended:
			return fmt.Errorf("it ended: %v", s.err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/_ministack/ready", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// Stop ends the stand-in and removes its files.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-s.ended:
	case <-time.After(endAfter):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	os.RemoveAll(s.dir)
}

// tail is the end of the stand-in's log.
func (s *Server) tail() []byte {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return fmt.Appendf(nil, "read its log: %v", err)
	}
	return b[max(0, len(b)-logTail):]
}
