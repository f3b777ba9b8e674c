package client_test

import (
	"context"
	"log"
	"log/slog"
	"maps"
	"net/http/httptest"
	"time"

	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/server"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/keyring"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// serveSample serves the first release of the tests, signed, by the system's clock, until stop is called.
func serveSample() (url string, rootPEM []byte, stop func()) {
	releases, err := builds[kind{}]()
	if err != nil {
		log.Fatal(err)
	}
	objects := &objects{m: maps.Clone(releases[0])}
	ring := keyring.Keyring{Version: 1, Expires: time.Now().Add(24 * time.Hour), Roots: publics(rootKey), Signing: publics(signingKey)}
	signed, err := ring.Sign(context.Background(), rootKey)
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{layout.KeyringVersionKey(1), layout.KeyringKey} {
		objects.put(key, signed.Encode())
	}
	maker, err := issuer.New(signingKey, issuer.DefaultSchedule(), time.Now)
	if err != nil {
		log.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	published := server.NewPublished(objects, logger)
	if err := published.Refresh(context.Background()); err != nil {
		log.Fatal(err)
	}
	s := server.New(objects, published, server.NewMetrics(), logger)
	s.Statements(maker)
	web := httptest.NewServer(s.Handler())
	return web.URL, signing.PublicPEM(rootKey.Public()), web.Close
}
