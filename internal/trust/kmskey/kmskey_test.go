package kmskey_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/precast-ota/precast/internal/trust/kmskey"
	"github.com/precast-ota/precast/internal/trust/signing"
)

const arn = "arn:aws:kms:eu-west-1:123456789012:key/1"

// fake is KMS with one key. It refuses what KMS refuses.
type fake struct {
	key   signing.PrivateKey
	spec  types.KeySpec
	usage types.KeyUsageType
	fail  error
}

func (f *fake) GetPublicKey(_ context.Context, in *kms.GetPublicKeyInput, _ ...func(*kms.Options)) (*kms.GetPublicKeyOutput, error) {
	if id := aws.ToString(in.KeyId); id != arn && id != "alias/packages" {
		return nil, &types.NotFoundException{Message: aws.String("no such key")}
	}
	return &kms.GetPublicKeyOutput{KeyId: aws.String(arn), KeySpec: f.spec, KeyUsage: f.usage, PublicKey: f.key.Public().DER()}, f.fail
}

func (f *fake) Sign(ctx context.Context, in *kms.SignInput, _ ...func(*kms.Options)) (*kms.SignOutput, error) {
	switch {
	case f.fail != nil:
		return nil, f.fail
	case aws.ToString(in.KeyId) != arn:
		return nil, &types.NotFoundException{Message: aws.String("the alias may have moved")}
	case in.SigningAlgorithm != types.SigningAlgorithmSpecEd25519Sha512 || in.MessageType != types.MessageTypeRaw || len(in.Message) > 4096:
		return nil, errors.New("ValidationException")
	}
	signature, err := f.key.Sign(ctx, in.Message)
	return &kms.SignOutput{KeyId: in.KeyId, Signature: signature}, err
}

func newFake(t *testing.T) *fake {
	t.Helper()
	key, err := signing.Generate(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return &fake{key: key, spec: types.KeySpecEccNistEdwards25519, usage: types.KeyUsageTypeSignVerify}
}

func TestSigns(t *testing.T) {
	f := newFake(t)
	for _, id := range []string{arn, "alias/packages"} {
		s, err := kmskey.Open(t.Context(), f, id)
		if err != nil {
			t.Fatal(err)
		}
		// A text is longer than what KMS takes; its message is not.
		text := bytes.Repeat([]byte("x"), 200_000)
		signature, err := signing.Sign(t.Context(), s, text)
		if err != nil {
			t.Fatal(err)
		}
		if err := signing.Verify(f.key.Public(), text, signature); err != nil {
			t.Error(err)
		}
	}
}

func TestRefuses(t *testing.T) {
	f := newFake(t)
	if _, err := kmskey.Open(t.Context(), f, "alias/none"); err == nil {
		t.Error("no key was opened")
	}
	f.spec = types.KeySpecEccNistP256
	if _, err := kmskey.Open(t.Context(), f, arn); !errors.Is(err, kmskey.ErrKey) {
		t.Errorf("another curve: %v", err)
	}
	f = newFake(t)
	s, err := kmskey.Open(t.Context(), f, arn)
	if err != nil {
		t.Fatal(err)
	}
	f.fail = &types.KMSInvalidStateException{Message: aws.String("disabled")}
	if _, err := signing.Sign(t.Context(), s, []byte("x")); !errors.As(err, new(*types.KMSInvalidStateException)) {
		t.Errorf("disabled key: %v", err)
	}
	// A key that has been replaced behind its name.
	f.fail = nil
	sum := sha256.Sum256(nil)
	if f.key, err = signing.Generate(bytes.NewReader(sum[:])); err != nil {
		t.Fatal(err)
	}
	if _, err := signing.Sign(t.Context(), s, []byte("x")); err == nil {
		t.Error("a signature by another key was passed on")
	}
}
