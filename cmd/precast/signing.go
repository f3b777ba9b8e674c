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
	SigningKey        string        `help:"Sign statements with this key: file:PATH, env:NAME or kms:ARN-OR-ALIAS. Default: nothing is signed." env:"PRECAST_SIGNING_KEY" placeholder:"SOURCE"`
	StatementPeriod   time.Duration `help:"How often statements are signed again." env:"PRECAST_STATEMENT_PERIOD" default:"24h"`
	StatementValidity time.Duration `help:"Validity of a statement, from the start of its period." env:"PRECAST_STATEMENT_VALIDITY" default:"168h"`
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
