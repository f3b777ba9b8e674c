package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/precast-ota/precast/internal/operate/history"
)

// What is a no in the server is one in the client, in the same words; everything else is an error.
func TestRefusalsTravel(t *testing.T) {
	for _, c := range []struct{ err, is error }{
		{fmt.Errorf("roll back: %w: generation 9 is published", history.ErrRace), history.ErrRace},
		{fmt.Errorf("pin: %w", history.ErrRefused), history.ErrRefused},
		{errors.New("disk full"), nil},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, nil, c.err) }))
		_, err := NewClient(Endpoint{Address: strings.TrimPrefix(server.URL, "http://")}).Unpin(t.Context())
		server.Close()
		for _, sentinel := range []error{history.ErrRace, history.ErrRefused} {
			if errors.Is(err, sentinel) != (sentinel == c.is) {
				t.Errorf("%v: the client says %v", c.err, err)
			}
		}
		if c.is != nil && err.Error() != c.err.Error() || !strings.Contains(err.Error(), c.err.Error()) {
			t.Errorf("%v: the client says %v", c.err, err)
		}
	}
}
