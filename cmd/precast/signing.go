package main

import (
	"context"
	"os"
	"time"

	"github.com/precast-ota/precast/internal/run/signingkey"
	"github.com/precast-ota/precast/internal/trust/issuer"
)

// signingFlags say how statements are signed.
type signingFlags struct {
	SigningKey        string        `help:"Sign statements by this key: file:PATH, env:NAME or kms:ARN-OR-ALIAS." env:"PRECAST_SIGNING_KEY" placeholder:"SOURCE"`
	StatementPeriod   time.Duration `help:"Sign statements anew this often." env:"PRECAST_STATEMENT_PERIOD" default:"24h"`
	StatementValidity time.Duration `help:"Statements are good for this long from the beginning of their period." env:"PRECAST_STATEMENT_VALIDITY" default:"168h"`
}

// statements returns what signs statements, or nil.
func (f signingFlags) statements(ctx context.Context) (*issuer.Issuer, error) {
	if f.SigningKey == "" {
		return nil, nil
	}
	key, err := signingkey.Open(ctx, f.SigningKey, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	return issuer.New(key, issuer.Schedule{Period: f.StatementPeriod, Validity: f.StatementValidity}, time.Now)
}
