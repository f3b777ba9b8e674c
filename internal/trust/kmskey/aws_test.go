//go:build aws

package kmskey_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/precast-ota/precast/internal/test/standin"
	"github.com/precast-ota/precast/internal/trust/kmskey"
	"github.com/precast-ota/precast/internal/trust/signing"
)

// Against the AWS stand-in, which has Ed25519 keys: go test -tags aws, after internal/test/standin/install.sh.
func TestAWSKMS(t *testing.T) {
	ctx := t.Context()
	server, err := standin.Start(ctx, standin.Options{Services: []string{"kms"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(server.URL), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	api := kms.NewFromConfig(cfg)
	made, err := api.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/packages"), TargetKeyId: made.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{aws.ToString(made.KeyMetadata.KeyId), aws.ToString(made.KeyMetadata.Arn), "alias/packages"} {
		s, err := kmskey.Open(ctx, api, id)
		if err != nil {
			t.Fatal(err)
		}
		text := []byte("precast statement 1\n")
		signature, err := signing.Sign(ctx, s, text)
		if err != nil {
			t.Fatal(err)
		}
		if err := signing.Verify(s.Public(), text, signature); err != nil {
			t.Error(err)
		}
	}
	other, err := api.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kmskey.Open(ctx, api, aws.ToString(other.KeyMetadata.KeyId)); !errors.Is(err, kmskey.ErrKey) {
		t.Errorf("another curve: %v", err)
	}
}
