//go:build aws

package standin

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestStartStop(t *testing.T) {
	s, err := Start(t.Context(), Options{Services: []string{"s3", "sqs"}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.URL, "http://127.0.0.1:") || !s.answers(t.Context()) {
		t.Errorf("%s does not answer", s.URL)
	}
	s.Stop()
	if resp, err := http.Get(s.URL); err == nil {
		resp.Body.Close()
		t.Error("it answers after Stop")
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is left: %v", err)
	}
	if err := s.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("its process is left: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start whose context has ended = %v", err)
	}
	// One that ends by itself says why.
	_, err := Start(t.Context(), Options{Env: []string{"GATEWAY_PORT=no number"}})
	if err == nil || !strings.Contains(err.Error(), "no number") {
		t.Errorf("Start = %v", err)
	}
	t.Chdir(t.TempDir())
	if _, err := Start(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "go.mod") {
		t.Errorf("Start outside of a module = %v", err)
	}
	if err := os.WriteFile("go.mod", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "install.sh") {
		t.Errorf("Start of what is not installed = %v", err)
	}
}
