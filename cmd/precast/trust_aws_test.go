//go:build aws

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// The signing key is in KMS, the keyring in S3, and a device believes what comes of it.
func TestTrustOnAWS(t *testing.T) {
	env, _ := onAWS(t)
	var endpoint string
	for _, v := range env {
		if url, ok := strings.CutPrefix(v, "AWS_ENDPOINT_URL="); ok {
			endpoint = url
		}
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithBaseEndpoint(endpoint), config.WithRegion("us-east-1"),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		t.Fatal(err)
	}
	api := kms.NewFromConfig(cfg)
	key, err := api.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistEdwards25519, KeyUsage: types.KeyUsageTypeSignVerify})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/packages"), TargetKeyId: key.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("precast")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	precast := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = work, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("precast %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	precast("seed", "--size", "2KiB")
	precast("keys", "init", "--dir", "keys", "--signing-key", "kms:alias/packages")
	if keys, _ := filepath.Glob(filepath.Join(work, "keys", "signing-*")); len(keys) > 0 {
		t.Errorf("%v: the signing key is in KMS", keys)
	}
	precast("keys", "publish", "--dir", "keys")
	s, err := startServer(path, work, env, "--signing-key", "kms:"+aws.ToString(key.KeyMetadata.Arn), "--max-bundles", "20")
	if err != nil {
		t.Fatal(err)
	}
	defer s.cmd.Process.Kill()
	roots, _ := filepath.Glob(filepath.Join(work, "keys", "root-*.pub.pem"))
	root, err := os.ReadFile(roots[0])
	if err != nil || !strings.Contains(string(root), "PUBLIC KEY") {
		t.Fatal(string(root), err)
	}
	out := precast("verify", s.url+"/package?cpuArch=armv8&attrGamer=prod", "--root", roots[0])
	if !strings.Contains(out, "verified: generation 1 for attrgamer=prod&cpuarch=armv8") {
		t.Errorf("%s", out)
	}
	// A new version replaces the published one, conditionally, and then it has been published already.
	precast("keys", "renew", "--dir", "keys")
	if out := precast("keys", "publish", "--dir", "keys"); !strings.Contains(out, "keyring version 2 is published") {
		t.Errorf("%s", out)
	}
	if out := precast("keys", "publish", "--dir", "keys"); !strings.Contains(out, "was published already") {
		t.Errorf("%s", out)
	}
	precast("verify", s.url+"/package?cpuArch=armv8", "--root", roots[0])
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}
