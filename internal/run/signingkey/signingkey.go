// Package signingkey opens the key that signs statements, wherever it is kept.
package signingkey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/precast-ota/precast/internal/run/settings"
	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/internal/trust/issuer"
	"github.com/precast-ota/precast/internal/trust/kmskey"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Issuer returns what signs statements, or nil if the settings name no key. look is os.LookupEnv, or a test's.
func Issuer(ctx context.Context, s settings.Signing, look func(string) (string, bool)) (*issuer.Issuer, error) {
	if s.SigningKey == "" {
		return nil, nil
	}
	key, err := Open(ctx, s.SigningKey, look)
	if err != nil {
		return nil, err
	}
	return issuer.New(key, issuer.Schedule{Period: s.StatementPeriod, Validity: s.StatementValidity}, time.Now)
}

// Open opens a key by where it is: file:PATH or env:NAME, a private key in PEM, or kms:KEY, the ARN, ID
// or alias of a key that AWS KMS holds. look is os.LookupEnv, or a test's.
func Open(ctx context.Context, source string, look func(string) (string, bool)) (signing.Signer, error) {
	kind, rest, _ := strings.Cut(source, ":")
	switch {
	case rest == "":
	case kind == "file":
		return signing.ReadFile(rest)
	case kind == "env":
		text, ok := look(rest)
		if !ok || text == "" {
			return nil, fmt.Errorf("open signing key: %s is not set", rest)
		}
		// Environments that cannot hold lines have \n for their ends.
		key, err := signing.ParsePrivateKey([]byte(strings.ReplaceAll(text, `\n`, "\n")))
		if err != nil {
			return nil, fmt.Errorf("open signing key of %s: %w", rest, err)
		}
		return key, nil
	case kind == "kms":
		cfg, err := awsstore.LoadConfig(ctx)
		if err != nil {
			return nil, err
		}
		return kmskey.Open(ctx, kms.NewFromConfig(cfg), rest)
	}
	return nil, errors.New("open signing key: it is at file:PATH, env:NAME or kms:ARN-OR-ALIAS")
}
