// Package kmskey signs by a key that AWS KMS holds and never shows.
package kmskey

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/precast-ota/precast/internal/trust/signing"
)

// API is what the package needs of *kms.Client: kms:GetPublicKey and kms:Sign on one key.
type API interface {
	GetPublicKey(ctx context.Context, in *kms.GetPublicKeyInput, opts ...func(*kms.Options)) (*kms.GetPublicKeyOutput, error)
	// Sign takes messages of up to 4,096 bytes (https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html).
	Sign(ctx context.Context, in *kms.SignInput, opts ...func(*kms.Options)) (*kms.SignOutput, error)
}

// Signer is a key in KMS. It is safe for concurrent use.
type Signer struct {
	api    API
	key    string // ARN: an alias may be moved to another key meanwhile
	public signing.PublicKey
}

var _ signing.Signer = (*Signer)(nil)

// ErrKey: the key is not one that signs by Ed25519.
var ErrKey = errors.New("key is not an Ed25519 signing key (key spec ECC_NIST_EDWARDS25519, key usage SIGN_VERIFY)")

// Open finds a key by its ID, ARN or alias.
func Open(ctx context.Context, api API, key string) (*Signer, error) {
	out, err := api.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(key)})
	if err != nil {
		return nil, fmt.Errorf("open KMS key %s: %w", key, err)
	}
	if out.KeySpec != types.KeySpecEccNistEdwards25519 || out.KeyUsage != types.KeyUsageTypeSignVerify {
		return nil, fmt.Errorf("open KMS key %s: %w: it is of spec %s, usage %s", key, ErrKey, out.KeySpec, out.KeyUsage)
	}
	public, err := signing.ParseDER(out.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("open KMS key %s: %w", key, err)
	}
	return &Signer{api: api, key: aws.ToString(out.KeyId), public: public}, nil
}

// Public implements signing.Signer.
func (s *Signer) Public() signing.PublicKey { return s.public }

// Sign implements signing.Signer.
func (s *Signer) Sign(ctx context.Context, message []byte) ([]byte, error) {
	// ED25519_SHA_512 is plain Ed25519, and takes RAW messages only (API_Sign.html, MessageType).
	out, err := s.api.Sign(ctx, &kms.SignInput{
		KeyId: aws.String(s.key), Message: message, MessageType: types.MessageTypeRaw, SigningAlgorithm: types.SigningAlgorithmSpecEd25519Sha512,
	})
	if err != nil {
		return nil, fmt.Errorf("sign by KMS key %s: %w", s.key, err)
	}
	return out.Signature, nil
}
